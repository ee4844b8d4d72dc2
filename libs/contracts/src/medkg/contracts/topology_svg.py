"""A topology drawn as SVG."""

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from xml.sax.saxutils import escape, quoteattr

from medkg.contracts.stages import StageType
from medkg.contracts.topology import GateDefinition, StageDefinition, Topology
from medkg.contracts.topology_layout import Box, Point, in_order, lay_out
from medkg.contracts.topology_words import cut, gate_words, notes, printable

_MARGIN = 24.0
_CORNER = 9.0  # radius of a bend
_HEAD = 7.0  # length of an arrow's head
_INSET = 20.0  # of a box's text, right of the coloured band
_LINE = 18.0  # height of a line of small text
_TITLE_SIZE, _NAME_SIZE, _SMALL_SIZE = 20, 15, 12
_CHARACTER = 0.58  # mean width of a character, in font sizes; on the generous side, for fonts we do not know
_BOLD_CHARACTER = 0.66
_SHOWN_CHARACTERS = 48  # of one line in a box

_FAMILIES: Mapping[StageType, str] = MappingProxyType(
    {
        StageType.INGEST: "source",
        StageType.DOWNLOAD: "source",
        StageType.PARSE: "document",
        StageType.VALIDATE: "document",
        StageType.CHUNK: "search",
        StageType.EMBED: "search",
        StageType.INDEX: "search",
        StageType.EXTRACT: "graph",
        StageType.KG: "graph",
        StageType.GATE: "gate",
    }
)

_STYLE = """
.topology{font-family:system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue","DejaVu Sans",Arial,sans-serif}
.topology .title{font-size:20px;font-weight:650}
.topology text{fill:#1f2328}
.topology .name{font-size:15px;font-weight:600}
.topology .small{font-size:12px}
.topology .sub{font-size:13px}
.topology .tiny{font-size:11px}
.topology .middle{text-anchor:middle}
.topology .muted{fill:#59636e}
.topology .box{fill:#ffffff;stroke:#c4ccd6;stroke-width:1}
.topology .optional .box{stroke-dasharray:5 4}
.topology .edge{fill:none;stroke:#8b95a1;stroke-width:1.5}
.topology .head{fill:#8b95a1}
.topology .chip{fill:#eef1f4}
.topology .source .band{fill:#2f7fd6}
.topology .document .band{fill:#8250df}
.topology .search .band{fill:#1f9254}
.topology .graph .band{fill:#c4590f}
.topology .gate .box{fill:#fff6e0;stroke:#c99a2e;stroke-width:1.5}
@media (prefers-color-scheme:dark){
.topology text{fill:#e6edf3}
.topology .muted{fill:#9aa4af}
.topology .box{fill:#1c2128;stroke:#454d58}
.topology .edge{stroke:#737d89}
.topology .head{fill:#737d89}
.topology .chip{fill:#2b323b}
.topology .source .band{fill:#58a6ff}
.topology .document .band{fill:#b78cf7}
.topology .search .band{fill:#3fb96f}
.topology .graph .band{fill:#e8874a}
.topology .gate .box{fill:#33290f;stroke:#d2a63c}
}
"""


def as_svg(topology: Topology) -> str:
    """The graph as one SVG element, readable on light and dark ground. All text is escaped.

    Each stage is a group with ``data-stage``, so that a page can hang live figures on it.
    """
    layout = lay_out(topology, _sizes(topology))
    heading = _Heading(topology)
    width = max(layout.width, heading.width) + 2 * _MARGIN
    height = heading.height + layout.height + _MARGIN
    left = (width - layout.width) / 2
    label = f"Pipeline {topology.name} {topology.version}: {', '.join(in_order(topology))}"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="topology" role="img" aria-label={quoteattr(label)} '
        f'width="{width:g}" height="{height:g}" viewBox="0 0 {width:g} {height:g}">',
        f"<style>{_STYLE}</style>",
        *heading.lines(),
        f'<g transform="translate({left:g} {heading.height:g})">',
        *(_edge(points) for points in layout.routes.values()),
        *(_drawn(topology, stage, layout.boxes[stage.name]) for stage in topology.stages),
        "</g>",
        "</svg>",
    ]
    return "\n".join(parts)


@dataclass(frozen=True, slots=True)
class _Heading:
    topology: Topology

    @property
    def _small(self) -> list[str]:
        words = " ".join(printable(self.topology.description).split())
        sources = ", ".join(self.topology.applicable_sources)
        return [*textwrap.wrap(words, 56), *(textwrap.wrap(f"Sources: {sources}", 56) if sources else [])]

    @property
    def width(self) -> float:
        title = _wide(f"{self.topology.name} {self.topology.version}", _TITLE_SIZE)
        return max(title, *(_wide(line, _SMALL_SIZE + 1) for line in self._small), 0.0)

    @property
    def height(self) -> float:
        return _MARGIN + _TITLE_SIZE + _LINE * len(self._small) + 20

    def lines(self) -> list[str]:
        x, y = _MARGIN, _MARGIN + _TITLE_SIZE - 4
        title = f'{escape(self.topology.name)} <tspan class="muted">{escape(self.topology.version)}</tspan>'
        found = [f'<text class="title" x="{x:g}" y="{y:g}">{title}</text>']
        for number, line in enumerate(self._small, start=1):
            found.append(_text(line, x, y + 4 + number * _LINE, "sub muted"))
        return found


def _sizes(topology: Topology) -> dict[str, tuple[float, float]]:
    """Stages are all as wide as the widest, gates as wide as they need to be; the height follows from the lines."""
    stages = [stage for stage in topology.stages if isinstance(stage, StageDefinition)]
    widest = max((_stage_width(topology, stage) for stage in stages), default=0.0)
    sizes = {stage.name: (widest, 52 + _LINE * len(notes(topology, stage))) for stage in stages}
    for gate in topology.stages:
        if isinstance(gate, GateDefinition):
            lines = _gate_lines(topology, gate)
            width = max(_wide(gate.name, _NAME_SIZE), *(_wide(line, _SMALL_SIZE) for line in lines)) + 64
            sizes[gate.name] = (max(width, widest), 36 + _LINE * len(lines))
    return sizes


def _stage_width(topology: Topology, stage: StageDefinition) -> float:
    first = _wide(cut(stage.name, _SHOWN_CHARACTERS), _NAME_SIZE) + 16 + _chip_width(stage)
    others = [_kind_line(stage), *(cut(note, _SHOWN_CHARACTERS) for note in notes(topology, stage))]
    return max(190.0, _INSET + 12 + max(first, *(_wide(line, _SMALL_SIZE) for line in others)))


def _kind_line(stage: StageDefinition) -> str:
    return f"{stage.type.value} · {stage.uses}" if stage.uses else stage.type.value


def _gate_lines(topology: Topology, gate: GateDefinition) -> list[str]:
    return [cut(line, _SHOWN_CHARACTERS) for line in (*gate_words(gate), *notes(topology, gate))]


def _chip_width(stage: StageDefinition) -> float:
    return _wide(cut(stage.policy, 24), _SMALL_SIZE - 1) + 14


def _drawn(topology: Topology, stage: StageDefinition | GateDefinition, box: Box) -> str:
    kind = stage.type.value
    is_optional = isinstance(stage, StageDefinition) and stage.when is not None
    classes = f"{_FAMILIES[stage.type]}{' optional' if is_optional else ''}"
    inside = _gate(topology, stage, box) if isinstance(stage, GateDefinition) else _card(topology, stage, box)
    return "\n".join(
        [
            f'<g class="{classes}" data-stage={quoteattr(stage.name)} data-type="{kind}">',
            f"<title>{escape(stage.name)}: {kind}</title>",
            *inside,
            "</g>",
        ]
    )


def _card(topology: Topology, stage: StageDefinition, box: Box) -> list[str]:
    x, y = box.x - box.width / 2, box.y - box.height / 2
    chip = _chip_width(stage)
    chip_x = x + box.width - chip - 10
    found = [
        f'<rect class="box" x="{x:g}" y="{y:g}" width="{box.width:g}" height="{box.height:g}" rx="8"/>',
        f'<rect class="band" x="{x + 7:g}" y="{y + 9:g}" width="4" height="{box.height - 18:g}" rx="2"/>',
        _text(cut(stage.name, _SHOWN_CHARACTERS), x + _INSET, y + 23, "name"),
        f'<rect class="chip" x="{chip_x:g}" y="{y + 10:g}" width="{chip:g}" height="18" rx="9"/>',
        _text(cut(stage.policy, 24), chip_x + chip / 2, y + 23, "tiny muted middle"),
        _text(_kind_line(stage), x + _INSET, y + 41, "small muted"),
    ]
    for number, note in enumerate(notes(topology, stage), start=1):
        found.append(_text(cut(note, _SHOWN_CHARACTERS), x + _INSET, y + 41 + number * _LINE, "small"))
    return found


def _gate(topology: Topology, gate: GateDefinition, box: Box) -> list[str]:
    left, right, top, bottom = (
        box.x - box.width / 2,
        box.x + box.width / 2,
        box.y - box.height / 2,
        box.y + box.height / 2,
    )
    slope = 18
    corners = (
        (left, box.y),
        (left + slope, top),
        (right - slope, top),
        (right, box.y),
        (right - slope, bottom),
        (left + slope, bottom),
    )
    points = " ".join(f"{x:g},{y:g}" for x, y in corners)
    found = [
        f'<polygon class="box" points="{points}" stroke-linejoin="round"/>',
        _text(gate.name, box.x, top + 22, "name middle"),
    ]
    for number, line in enumerate(_gate_lines(topology, gate), start=1):
        found.append(_text(line, box.x, top + 22 + number * _LINE, "small middle"))
    return found


def _edge(points: tuple[Point, ...]) -> str:
    """A line with rounded corners and an arrow's head."""
    x, y = points[-1]
    ends = [*points[:-1], (x, y - _HEAD + 1)]
    path = [f"M{ends[0][0]:g} {ends[0][1]:g}"]
    for before, corner, after in zip(ends, ends[1:], ends[2:], strict=False):
        radius = min(_CORNER, _distance(before, corner) / 2, _distance(corner, after) / 2)
        start, end = _towards(corner, before, radius), _towards(corner, after, radius)
        path.append(f"L{start[0]:g} {start[1]:g}Q{corner[0]:g} {corner[1]:g} {end[0]:g} {end[1]:g}")
    path.append(f"L{ends[-1][0]:g} {ends[-1][1]:g}")
    head = f"{x:g},{y:g} {x - 4.5:g},{y - _HEAD - 1:g} {x + 4.5:g},{y - _HEAD - 1:g}"
    return f'<path class="edge" d="{"".join(path)}"/><polygon class="head" points="{head}"/>'


def _distance(a: Point, b: Point) -> float:
    return abs(a[0] - b[0]) + abs(a[1] - b[1])  # lines are vertical or horizontal


def _towards(start: Point, end: Point, length: float) -> Point:
    whole = _distance(start, end) or 1.0
    return (start[0] + (end[0] - start[0]) * length / whole, start[1] + (end[1] - start[1]) * length / whole)


def _text(text: str, x: float, y: float, classes: str) -> str:
    return f'<text class="{classes}" x="{x:g}" y="{y:g}">{escape(printable(text))}</text>'


def _wide(text: str, size: float) -> float:
    return len(text) * size * (_CHARACTER if size < _NAME_SIZE else _BOLD_CHARACTER)
