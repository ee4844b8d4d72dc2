"""Where a document goes next: one pure function that every worker shares.

A stage whose ``when`` does not hold is passed over, and the document goes on as if that stage had run. A gate, and a stage
with several predecessors (a join), is reached through the gate-router's topic: the router is the only place that waits.
"""

from dataclasses import dataclass

from medkg.contracts import topics
from medkg.contracts.context import Metadata
from medkg.contracts.messages import Artefact
from medkg.contracts.stages import STAGE_CONTRACTS, StageType
from medkg.contracts.topology import GateDefinition, StageDefinition, Topology


@dataclass(frozen=True, slots=True)
class Route:
    """What follows a finished stage.

    ``steps`` are the next stages with the topic each is asked on. ``skipped`` were passed over by ``when``.
    ``finished_leaves`` are the ends of the pipeline that are reached with this stage.
    """

    steps: tuple[tuple[str, str], ...]
    skipped: tuple[str, ...]
    finished_leaves: tuple[str, ...]


def route_after(topology: Topology, finished: str, metadata: Metadata) -> Route:
    """The route of a document on which ``finished`` has just run.

    Raises:
        KeyError: the topology has no such stage.
    """
    steps: list[tuple[str, str]] = []
    skipped: list[str] = []
    leaves: list[str] = []
    _walk(topology, finished, metadata, steps, skipped, leaves)
    return Route(tuple(dict.fromkeys(steps)), tuple(dict.fromkeys(skipped)), tuple(dict.fromkeys(leaves)))


def topic_of(topology: Topology, name: str) -> str:
    """The topic on which a stage is asked, waits included."""
    stage = topology.by_name[name]
    if isinstance(stage, GateDefinition) or len(topology.predecessors[name]) > 1:
        return topics.GATE
    return stage.type.topic


def artefacts_for(topology: Topology, name: str, artefacts: dict[str, Artefact]) -> dict[str, Artefact]:
    """Of what has been made so far, what ``name`` and the stages after it still need.

    What ``name`` itself reads stays inline where it is; the rest travels as a reference where it is stored.
    """
    stage = topology.by_name[name]
    reads = STAGE_CONTRACTS[stage.type].consumes if isinstance(stage, StageDefinition) else ""
    needed = _kinds_needed_from(topology, name)
    return {
        kind: artefact if kind == reads or not artefact.is_stored else artefact.without_inline()
        for kind, artefact in artefacts.items()
        if kind in needed
    }


def _walk(
    topology: Topology,
    name: str,
    metadata: Metadata,
    steps: list[tuple[str, str]],
    skipped: list[str],
    leaves: list[str],
) -> None:
    following = topology.successors[name]
    if not following:
        leaves.append(name)
    for next_name in following:
        stage = topology.by_name[next_name]
        if isinstance(stage, StageDefinition) and stage.when is not None and not stage.when.holds(metadata):
            skipped.append(next_name)
            _walk(topology, next_name, metadata, steps, skipped, leaves)
        else:
            steps.append((next_name, topic_of(topology, next_name)))


def _kinds_needed_from(topology: Topology, name: str) -> frozenset[str]:
    cache: dict[str, frozenset[str]] = topology.__dict__.setdefault("_kinds_needed", {})
    if name not in cache:
        kinds: set[str] = set()
        seen: set[str] = set()
        ahead = [name]
        while ahead:
            current = ahead.pop()
            if current in seen:
                continue
            seen.add(current)
            stage = topology.by_name[current]
            if stage.type is not StageType.GATE:
                kinds.add(STAGE_CONTRACTS[StageType(stage.type)].consumes)
            ahead.extend(topology.successors[current])
        cache[name] = frozenset(kinds)
    return cache[name]
