"""What a drawing says of a stage, in few words."""

import re

from medkg.contracts.topology import GateDefinition, StageDefinition, Topology, When

_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def gate_words(gate: GateDefinition) -> tuple[str, str]:
    """What a gate waits for, and for how long."""
    condition = f"waits for {gate.condition.ledger_field} = {_value(gate.condition.equals)}"
    return condition, f"at most {duration(gate.timeout_seconds)}, then {gate.on_timeout.value}"


def when_words(when: When) -> str:
    """A predicate as people would write it."""
    parts = [
        f"= {_value(when.equals)}" if when.equals is not None else "",
        f"≠ {_value(when.not_equals)}" if when.not_equals is not None else "",
        f"in {', '.join(map(_value, when.one_of))}" if when.one_of is not None else "",
        f"≥ {when.at_least:g}" if when.at_least is not None else "",
        f"≤ {when.at_most:g}" if when.at_most is not None else "",
        ("exists" if when.exists else "does not exist") if when.exists is not None else "",
    ]
    return f"when {when.field} {' and '.join(part for part in parts if part)}"


def notes(topology: Topology, stage: StageDefinition | GateDefinition) -> list[str]:
    """What is particular about a stage: that it joins branches, or may be passed over."""
    found = []
    if stage.name in topology.joins:
        found.append(f"joins {', '.join(topology.predecessors[stage.name])}")
    if isinstance(stage, StageDefinition) and stage.when is not None:
        found.append(when_words(stage.when))
    return found


def duration(seconds: float) -> str:
    """Seconds in the largest unit that needs no fraction."""
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size and seconds % size == 0 and not (unit == "d" and seconds < 3 * size):
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} s"


def cut(text: str, length: int) -> str:
    """At most ``length`` characters."""
    return text if len(text) <= length else f"{text[: max(length - 1, 0)]}…"


def printable(text: str) -> str:
    """Without what neither a terminal nor XML can take."""
    return _UNPRINTABLE.sub("\ufffd", text)


def _value(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
