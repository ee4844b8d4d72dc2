"""Whether the stages of a topology make a pipeline: what a schema cannot say.

Works on the plain content of a file, whatever else is wrong with it, so that all faults can be named at once. What
follows from a fault that is already named is not named again: a stage after an unknown one is taken to be reachable.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from medkg.contracts.stages import GATE_PRODUCES, STAGE_CONTRACTS, StageType
from medkg.contracts.topology import LEDGER_FIELDS, RETRY_COUNT_PREFIX, Policies
from medkg.contracts.topology_yaml import Path

MAX_STAGES = 100  # as in the model; a longer list is refused there


@dataclass(frozen=True, slots=True)
class Finding:
    """A fault and the way to it in the content. ``also`` leads to a second place whose line helps the reader."""

    path: Path
    message: str
    hint: str = ""
    also: Path | None = None


@dataclass(slots=True)
class _Stage:
    index: int
    name: str
    type: StageType | None
    raw: dict[str, Any]
    before: tuple[str, ...] = ()
    is_vague: bool = False  # what it depends on is not known for sure

    def path(self, *parts: str | int) -> Path:
        return ("stages", self.index, *(part for part in parts if isinstance(part, int) or part in self.raw))

    @property
    def is_gate(self) -> bool:
        return self.type is StageType.GATE

    @property
    def makes(self) -> str:
        """The kind of artefact that is there after this stage and was not before."""
        if self.type is None:
            return ""
        if not self.is_gate:
            return STAGE_CONTRACTS[self.type].produces
        return GATE_PRODUCES.get(self.ledger_field, "")

    @property
    def ledger_field(self) -> str:
        """What a gate waits for; empty where that is not known."""
        condition = self.raw.get("condition")
        field = condition.get("ledger_field") if isinstance(condition, dict) else None
        is_known = isinstance(field, str) and (field in LEDGER_FIELDS or field.startswith(RETRY_COUNT_PREFIX))
        return str(field) if is_known else ""

    @property
    def reads(self) -> str:
        return "" if self.type is None or self.is_gate else STAGE_CONTRACTS[self.type].consumes

    @property
    def is_conditional(self) -> bool:
        """A document may come past it without what it makes."""
        return self.raw.get("when") is not None or (self.is_gate and self.raw.get("on_timeout") == "release")


def check_graph(content: dict[str, Any], policies: Policies) -> list[Finding]:
    """Everything wrong with the stages of a topology, in no particular order."""
    stages = content.get("stages")
    if not isinstance(stages, list) or not stages or len(stages) > MAX_STAGES:
        return []
    graph = _Graph(stages)
    return [
        *graph.findings,
        *_unknown_policies(graph, policies),
        *_cycles(graph),
        *_beginnings(graph),
        *_misplaced_fields(graph),
        *_gates(graph, content),
        *_missing_inputs(graph),
    ]


class _Graph:
    """The stages by name with what comes before and after; unknown and repeated names are found on the way."""

    def __init__(self, stages: list[Any]) -> None:
        self.findings: list[Finding] = []
        self.by_name: dict[str, _Stage] = {}
        self.is_whole = True  # every stage of the file has a name and stands in by_name
        for index, raw in enumerate(stages):
            self._enter(index, raw)
        above = ""
        for stage in self.by_name.values():
            self._connect(stage, above)
            above = stage.name
        self.after: dict[str, list[str]] = {name: [] for name in self.by_name}
        for stage in self.by_name.values():
            for name in stage.before:
                self.after[name].append(stage.name)
        self.ahead = {name: self._reach(name) for name in self.by_name}
        self.ancestors = {
            name: [self.by_name[other] for other in self.by_name if name in self.ahead[other]] for name in self.by_name
        }

    def in_cycle(self, name: str) -> bool:
        return name in self.ahead[name]

    def is_certain(self, stage: _Stage) -> bool:
        """Nothing before the stage is unknown, so that what cannot be found before it is really missing."""
        chain = [stage, *self.ancestors[stage.name]]
        is_led_to = all(s.before or s.type is StageType.INGEST for s in chain)
        return is_led_to and not any(
            s.is_vague or s.type is None or (s.is_gate and not s.ledger_field) or self.in_cycle(s.name) for s in chain
        )

    def _enter(self, index: int, raw: Any) -> None:
        name = raw.get("name") if isinstance(raw, dict) else None
        if not isinstance(name, str):
            self.is_whole = False
            return
        if name in self.by_name:
            first = self.by_name[name].path("name")
            self.findings.append(Finding(("stages", index, "name"), f"two stages are named {name!r}", also=first))
            self.is_whole = False
            return
        kind = raw.get("type")
        known = isinstance(kind, str) and kind in set(StageType)
        self.by_name[name] = _Stage(index, name, StageType(kind) if known else None, raw)

    def _connect(self, stage: _Stage, above: str) -> None:
        wanted = stage.raw.get("depends_on", [])
        if not isinstance(wanted, list) or not all(isinstance(name, str) for name in wanted):
            stage.is_vague = True
            return
        known = []
        for index, name in enumerate(wanted):
            if name in self.by_name:
                known.append(name)
                continue
            stage.is_vague = True
            message = f"stage {stage.name!r} depends on {name[:80]!r}, which does not exist"
            hint = did_you_mean(name, [other for other in self.by_name if other != stage.name])
            self.findings.append(Finding(stage.path("depends_on", index), message, hint))
        if stage.is_gate and not wanted and above:
            known = [above]
        stage.before = tuple(dict.fromkeys(known))

    def _reach(self, name: str) -> set[str]:
        seen: set[str] = set()
        ahead = list(self.after[name])
        while ahead:
            current = ahead.pop()
            if current not in seen:
                seen.add(current)
                ahead.extend(self.after[current])
        return seen


def did_you_mean(wanted: str, names: list[str]) -> str:
    """A hint with the name that was probably meant, else with those there are."""
    close = get_close_matches(wanted[:80], names, n=1)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"there is {', '.join(names[:12])}{' …' if len(names) > 12 else ''}" if names else ""


def _unknown_policies(graph: _Graph, policies: Policies) -> Iterator[Finding]:
    for stage in graph.by_name.values():
        policy = stage.raw.get("policy", "default")
        if not stage.is_gate and isinstance(policy, str) and policy not in policies.policies:
            message = f"stage {stage.name!r} has the policy {policy[:80]!r}, which does not exist"
            yield Finding(stage.path("policy"), message, did_you_mean(policy, sorted(policies.policies)))


def _cycles(graph: _Graph) -> Iterator[Finding]:
    told: set[str] = set()
    for name, stage in graph.by_name.items():
        if name in told or not graph.in_cycle(name):
            continue
        told |= {other for other in graph.ahead[name] if name in graph.ahead[other]}
        way = _way_back(graph, name)
        wanted = stage.raw.get("depends_on", [])
        closing = wanted.index(way[-2]) if way[-2] in wanted else 0
        yield Finding(stage.path("depends_on", closing), f"the stages go round in a cycle: {' -> '.join(way)}")


def _way_back(graph: _Graph, start: str) -> list[str]:
    """The shortest way from a stage to itself, in the direction in which documents go."""
    came_from: dict[str, str] = {}
    ahead = [start]
    for current in ahead:
        for name in graph.after[current]:
            if name == start:
                way = [start, current]
                while way[-1] != start:
                    way.append(came_from[way[-1]])
                return way[::-1] if current != start else [start, start]
            if name not in came_from:
                came_from[name] = current
                ahead.append(name)
    raise AssertionError(f"{start} is in a cycle")


def _beginnings(graph: _Graph) -> Iterator[Finding]:
    """There is one beginning, of type IngestStage, and it leads to every stage."""
    stages = list(graph.by_name.values())
    for stage in stages:
        if stage.type is StageType.INGEST and stage.before:
            message = f"stage {stage.name!r} reads from a source, so it cannot come after {stage.before[0]!r}"
            yield Finding(stage.path("depends_on"), message, "an IngestStage is the beginning: it depends on nothing")
    roots = [stage for stage in stages if not stage.before and not stage.is_vague]
    entries = [stage for stage in roots if stage.type is StageType.INGEST]
    if not any(stage.type in (StageType.INGEST, None) for stage in stages):
        if graph.is_whole:
            yield Finding(("stages",), "no stage is of type IngestStage", "a pipeline begins with one")
        return
    for stage in entries[1:]:
        message = f"the pipeline begins twice: with {entries[0].name!r} and with {stage.name!r}"
        yield Finding(stage.path(), message, "one IngestStage is the beginning of all")
    reached = {name for root in roots if root.type in (StageType.INGEST, None) for name in graph.ahead[root.name]}
    for stage in roots:
        if stage.type in (StageType.INGEST, None):
            continue
        lost = [name for name in graph.by_name if name in graph.ahead[stage.name] and name not in reached]
        message = f"stage {stage.name!r} cannot be reached: it depends on nothing"
        if lost:
            message += f" (nor can {', '.join(map(repr, lost[:8]))}{' …' if len(lost) > 8 else ''} after it)"
        above = next((other.name for other in reversed(stages) if other.index < stage.index), "")
        yield Finding(stage.path(), message, f"add depends_on: [{above}]" if above else "")


def _misplaced_fields(graph: _Graph) -> Iterator[Finding]:
    for stage in graph.by_name.values():
        if stage.type is None:
            continue
        if stage.raw.get("checks") is not None and stage.type is not StageType.VALIDATE and not stage.is_gate:
            message = f"stage {stage.name!r} is of type {stage.type}, which makes no checks"
            yield Finding(stage.path("checks"), message, "only a ValidateStage does")
        yield from _tolerated(graph, stage)
        if stage.raw.get("when") is not None and stage.type is StageType.INGEST:
            message = f"stage {stage.name!r} cannot be passed over: there is no document before an IngestStage"
            yield Finding(stage.path("when"), message)


def _tolerated(graph: _Graph, stage: _Stage) -> Iterator[Finding]:
    """Only what a join depends on can be tolerated, and not what it reads."""
    tolerates = stage.raw.get("tolerates")
    if not isinstance(tolerates, list) or not tolerates or stage.is_gate or stage.is_vague:
        return
    if len(stage.before) < 2:
        message = f"stage {stage.name!r} joins no branches, so it has none whose failure it could tolerate"
        yield Finding(stage.path("tolerates"), message, "a join depends on several stages")
        return
    for index, name in enumerate(tolerates):
        if not isinstance(name, str):
            continue  # refused by the schema
        if name not in stage.before:
            message = f"stage {stage.name!r} tolerates {name[:80]!r}, which it does not depend on"
            yield Finding(stage.path("tolerates", index), message, did_you_mean(name, list(stage.before)))
            continue
        others = [other for other in stage.before if other not in tolerates]
        if stage.reads and name in graph.by_name and not any(_brings(graph, other, stage.reads) for other in others):
            message = f"stage {stage.name!r} reads {stage.reads}, so a branch that brings it has to succeed"
            yield Finding(stage.path("tolerates", index), message, "tolerate the failure of other branches only")


def _brings(graph: _Graph, name: str, kind: str) -> bool:
    """Whether an artefact is there after a stage of this name."""
    stage = graph.by_name.get(name)
    return stage is None or any(each.makes == kind for each in (stage, *graph.ancestors[name]))


def _gates(graph: _Graph, content: dict[str, Any]) -> Iterator[Finding]:
    for gate in graph.by_name.values():
        if not gate.is_gate:
            continue
        condition = gate.raw.get("condition")
        if isinstance(condition, dict) and isinstance(condition.get("ledger_field"), str):
            yield from _condition(graph, gate, condition, content)
        if len(gate.before) > 1:
            message = f"gate {gate.name!r} follows {len(gate.before)} stages, but a gate follows one"
            yield Finding(gate.path("depends_on"), message, "let a stage join the branches before it")
        resume = gate.raw.get("resume_stage")
        if not isinstance(resume, str):
            continue
        following = graph.after[gate.name]
        if resume not in graph.by_name and graph.is_whole:
            message = f"gate {gate.name!r} resumes at {resume[:80]!r}, which does not exist"
            yield Finding(gate.path("resume_stage"), message, did_you_mean(resume, following or list(graph.by_name)))
        elif resume in graph.by_name and resume not in following and not graph.by_name[resume].is_vague:
            message = f"gate {gate.name!r} resumes at {resume!r}, which does not come directly after it"
            after = f"after it comes {', '.join(following)}" if following else f"let {resume!r} depend on {gate.name!r}"
            yield Finding(gate.path("resume_stage"), message, after)


def _condition(graph: _Graph, gate: _Stage, condition: dict[str, Any], content: dict[str, Any]) -> Iterator[Finding]:
    """A gate whose condition can never be met."""
    field: str = condition["ledger_field"]
    value = condition.get("equals", True)
    at_field: Path = (*gate.path(), "condition", "ledger_field")
    at_value: Path = (*gate.path(), "condition", "equals") if "equals" in condition else at_field
    expected: list[Any] = []
    if field.startswith(RETRY_COUNT_PREFIX):
        stage = field.removeprefix(RETRY_COUNT_PREFIX)
        if stage not in graph.by_name and graph.is_whole:
            message = f"gate {gate.name!r} waits for the retries of {stage[:80]!r}, which does not exist"
            yield Finding(at_field, message, did_you_mean(stage, list(graph.by_name)))
        is_count = isinstance(value, int) and not isinstance(value, bool) and value >= 0
        wanted = "" if is_count else "a whole number"
    elif field not in LEDGER_FIELDS:
        message = f"gate {gate.name!r} waits for {field[:80]!r}, which the ledger does not have"
        yield Finding(at_field, message, did_you_mean(field, [*LEDGER_FIELDS, f"{RETRY_COUNT_PREFIX}STAGE"]))
        return
    elif LEDGER_FIELDS[field] is bool:
        wanted = "" if isinstance(value, bool) else "true or false"
    else:
        own = {"pipeline_name": content.get("name"), "pipeline_version": content.get("version")}
        names = [own[field]] if field in own else list(graph.by_name)
        expected = [name for name in names if isinstance(name, str) and graph.is_whole]
        wanted = "" if isinstance(value, str) else "text"
    if isinstance(value, list | dict):
        return  # refused by the schema
    if wanted:
        yield Finding(at_value, f"gate {gate.name!r} can never open: {field} is {wanted}, never {_shown(value)}")
    elif expected and value not in expected:
        hint = f"in this pipeline it is {' or '.join(map(str, expected[:12]))}"
        yield Finding(at_value, f"gate {gate.name!r} can never open: {field} is never {_shown(value)}", hint)


def _shown(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value)[:80]


def _missing_inputs(graph: _Graph) -> Iterator[Finding]:
    """Stages whose input is not there, not always there, or there twice."""
    for stage in graph.by_name.values():
        if not stage.reads or stage.type is StageType.INGEST or not graph.is_certain(stage):
            continue
        makers = [other for other in graph.ancestors[stage.name] if other.makes == stage.reads]
        if not makers:
            kinds = [kind.value for kind, contract in STAGE_CONTRACTS.items() if contract.produces == stage.reads]
            message = f"stage {stage.name!r} ({stage.type}) reads {stage.reads}, which no stage before it makes"
            yield Finding(stage.path("type"), message, f"let it come after one of type {' or '.join(kinds)}")
            continue
        last = [maker for maker in makers if not any(other.name in graph.ahead[maker.name] for other in makers)]
        always = [maker for maker in last if not maker.is_conditional]
        if len(always) > 1:
            names = " and ".join(repr(maker.name) for maker in always)
            message = f"stage {stage.name!r} reads {stage.reads}, which both {names} make on the way to it"
            yield Finding(stage.path("depends_on"), message, "let one come after the other, or give each a 'when'")
        elif len(makers) == 1 and not always and not stage.is_conditional:
            yield _sometimes(makers[0], stage)


def _sometimes(maker: _Stage, reader: _Stage) -> Finding:
    if maker.is_gate:
        message = f"gate {maker.name!r} lets documents go on without the {maker.makes} that {reader.name!r} reads"
        return Finding(maker.path("on_timeout"), message, "let on_timeout be fail or skip")
    message = (
        f"stage {reader.name!r} always reads {reader.reads}, but {maker.name!r}, which makes it, may be passed over"
    )
    return Finding(maker.path("when"), message, f"give {reader.name!r} a 'when' too")
