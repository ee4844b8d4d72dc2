"""A topology drawn for the terminal."""

import textwrap
from types import MappingProxyType

from medkg.contracts.topology import GateDefinition, StageDefinition, Topology
from medkg.contracts.topology_layout import in_order
from medkg.contracts.topology_words import cut, gate_words, notes, printable

_LEGEND = MappingProxyType({"●": "stage", "○": "may be passed over", "◆": "gate", "◉": "join"})


def as_text(topology: Topology, width: int = 100) -> str:
    """The graph from top to bottom, one line a stage, at most ``width`` columns, with no line break at the end.

    Branches run side by side on rails; beside each stage stand its type, implementation and policy.
    """
    rails = _Rails()
    names, marks = in_order(topology), set()
    rows: list[tuple[str, str]] = []  # rails, and the stage that stands beside them
    for position, name in enumerate(names):
        mark = _mark(topology, topology.by_name[name])
        marks.add(mark)
        rows += [(line, "") for line in rails.merge_into(name)]
        rows.append((rails.stage(mark), name))
        below = rails.go_on(topology.successors[name])
        rows += [(line, "") for line in below] if position + 1 < len(names) else []
    left = max(len(line) for line, _ in rows) + 2
    words = _columns(topology, width - left) | {"": ""}
    drawn = [f"{line:{left}}{words[name]}" for line, name in rows]
    legend = "   ".join(f"{mark} {word}" for mark, word in _LEGEND.items() if mark in marks)
    return "\n".join(cut(line.rstrip(), width) for line in [*_title(topology, width), "", *drawn, "", legend])


def _title(topology: Topology, width: int) -> list[str]:
    sources = f"  ·  {', '.join(topology.applicable_sources)}" if topology.applicable_sources else ""
    words = " ".join(printable(topology.description).split())
    return [f"{topology.name} {topology.version}{sources}", *textwrap.wrap(words, max(width, 20))]


def _mark(topology: Topology, stage: StageDefinition | GateDefinition) -> str:
    if isinstance(stage, GateDefinition):
        return "◆"
    if stage.name in topology.joins:
        return "◉"
    return "○" if stage.when is not None else "●"


def _columns(topology: Topology, width: int) -> dict[str, str]:
    """What stands beside each stage. Where it is narrow the type gives way: the name usually tells it."""
    full = _cells(topology, has_type=True)
    return full if max(map(len, full.values())) <= width else _cells(topology, has_type=False)


def _cells(topology: Topology, *, has_type: bool) -> dict[str, str]:
    stages = [stage for stage in topology.stages if isinstance(stage, StageDefinition)]
    name_width = max(len(stage.name) for stage in topology.stages)
    type_width = max((len(stage.type.value) for stage in stages), default=0)
    uses_width = max((len(stage.uses or "") for stage in stages), default=0)
    policy_width = max((len(stage.policy) for stage in stages), default=0)
    found = {}
    for stage in topology.stages:
        if isinstance(stage, GateDefinition):
            cells = [", ".join((*gate_words(stage), *notes(topology, stage)))]
        else:
            cells = [f"{stage.type.value:{type_width}}"] if has_type else []
            cells += [f"{stage.uses or '-':{uses_width}}", f"{stage.policy:{policy_width}}"]
            cells.append(", ".join(notes(topology, stage)))
        found[stage.name] = "  ".join([f"{stage.name:{name_width}}", *cells]).rstrip()
    return found


class _Rails:
    """The lines to the left: each lane is an edge on its way to a stage."""

    def __init__(self) -> None:
        self._lanes: list[str] = []  # the stage that a lane leads to, or nothing
        self._at = 0

    def merge_into(self, name: str) -> list[str]:
        """Lead all lanes of a stage together."""
        lanes = [index for index, target in enumerate(self._lanes) if target == name]
        if not lanes:
            self._lanes.append(name)
            lanes = [len(self._lanes) - 1]
        self._at, others = lanes[0], lanes[1:]
        lines = [self._across(others, "┴", "╯")] if others else []
        for index in others:
            self._lanes[index] = ""
        self._trim()
        return lines

    def stage(self, mark: str) -> str:
        """The line of the stage itself."""
        return " ".join(mark if i == self._at else "│" if target else " " for i, target in enumerate(self._lanes))

    def go_on(self, following: tuple[str, ...]) -> list[str]:
        """Lead lanes to the stages that follow."""
        self._lanes[self._at] = following[0] if following else ""
        opened = []
        for name in following[1:]:
            free = [i for i, target in enumerate(self._lanes) if not target and i > self._at]
            index = free[0] if free else len(self._lanes)
            self._lanes[index : index + 1] = [name]
            opened.append(index)
        self._trim()
        if opened:
            return [self._across(sorted(opened), "┬", "╮")]
        return [" ".join("│" if target else " " for target in self._lanes)]

    def _across(self, ends: list[int], middle: str, last: str) -> str:
        cells = []
        for index in range(max(len(self._lanes), ends[-1] + 1)):
            is_lane = index < len(self._lanes) and bool(self._lanes[index])
            if index == self._at:
                cells.append("├")
            elif index in ends:
                cells.append(last if index == ends[-1] else middle)
            elif self._at < index < ends[-1]:
                cells.append("┼" if is_lane else "─")
            else:
                cells.append("│" if is_lane else " ")
        gaps = ["─" if self._at <= index < ends[-1] else " " for index in range(len(cells))]
        return "".join(cell + gap for cell, gap in zip(cells, gaps, strict=True)).rstrip()

    def _trim(self) -> None:
        while self._lanes and not self._lanes[-1] and len(self._lanes) > self._at + 1:
            self._lanes.pop()
