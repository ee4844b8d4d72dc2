"""Where a document goes next: pure functions that every worker and the gate-router share.

A stage whose ``when`` does not hold is passed over, and the document goes on as if that stage had run. A gate, and a
stage with several predecessors (a join), is reached through the gate-router's topic: the router is the only place that
waits. At a join it waits until the document has come from every predecessor, then asks :func:`route_into`; at a gate
until the condition holds, then asks :func:`route_after`. So a join is never passed over before all branches have ended.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

from medkg.contracts import topics
from medkg.contracts.context import Metadata
from medkg.contracts.messages import Artefact
from medkg.contracts.topology import GateDefinition, StageDefinition, Topology, reads_of


class Step(NamedTuple):
    """A stage to be asked, on a topic. ``arrived_from`` is the predecessor as which the document comes.

    That is the stage that has just run, or the last one that was passed over: a join counts its predecessors by it. One
    route may hold several steps to the same join, when the stages between were passed over.
    """

    stage: str
    topic: str
    arrived_from: str


@dataclass(frozen=True, slots=True)
class Route:
    """What follows a finished stage.

    ``steps`` are the next stages. ``skipped`` were passed over by ``when``. ``finished_leaves`` are the ends of the
    pipeline that are reached with this stage.
    """

    steps: tuple[Step, ...]
    skipped: tuple[str, ...] = ()
    finished_leaves: tuple[str, ...] = ()


def route_after(topology: Topology, finished: str, metadata: Metadata) -> Route:
    """The route of a document on which ``finished`` has just run (a gate: has let it through).

    Raises:
        KeyError: the topology has no such stage.
    """
    walk = _Walk(topology, metadata)
    walk.on_from(finished)
    return walk.route()


def route_into(topology: Topology, name: str, metadata: Metadata) -> Route:
    """The route of a document that has come to the join ``name`` from all its predecessors.

    Either the stage itself, on its own topic, or what follows where its ``when`` does not hold.

    Raises:
        KeyError: the topology has no such stage.
    """
    stage = topology.by_name[name]
    if isinstance(stage, StageDefinition) and not _is_skipped(stage, metadata):
        return Route((Step(name, stage.type.topic, topology.predecessors[name][-1]),))
    walk = _Walk(topology, metadata)
    if isinstance(stage, StageDefinition):
        walk.skipped.append(name)
    walk.on_from(name)
    return walk.route()


def route_after_failure(topology: Topology, failed: str) -> Route | None:
    """Where a document goes on though ``failed`` has failed; None where it cannot, and so fails as a whole.

    It can where every way on from there comes to a join that tolerates the branch by which it is reached.

    Raises:
        KeyError: the topology has no such stage.
    """
    steps: list[Step] = []
    ahead, seen = [failed], {failed}
    while ahead:
        name = ahead.pop()
        following = topology.successors[name]
        if not following:
            return None
        for next_name in following:
            stage = topology.by_name[next_name]
            if next_name in topology.joins:
                if not isinstance(stage, StageDefinition) or name not in stage.tolerates:
                    return None
                steps.append(Step(next_name, topics.GATE, name))
            elif next_name not in seen:
                seen.add(next_name)
                ahead.append(next_name)
    return Route(tuple(steps))


def topic_of(topology: Topology, name: str) -> str:
    """The topic on which a stage is asked, waits included."""
    stage = topology.by_name[name]
    if isinstance(stage, GateDefinition) or name in topology.joins:
        return topics.GATE
    return stage.type.topic


def artefacts_for(topology: Topology, name: str, artefacts: dict[str, Artefact]) -> dict[str, Artefact]:
    """Of what has been made so far, what ``name`` and the stages after it still need.

    What ``name`` itself reads stays inline where it is; the rest travels as a reference where it is stored.
    """
    reads = reads_of(topology.by_name[name])
    needed = topology.kinds_needed[name]
    return {
        kind: artefact if kind == reads or not artefact.is_stored else artefact.without_inline()
        for kind, artefact in artefacts.items()
        if kind in needed
    }


def _is_skipped(stage: StageDefinition, metadata: Metadata) -> bool:
    return stage.when is not None and not stage.when.holds(metadata)


@dataclass(slots=True)
class _Walk:
    """Collects a route. Ends: a stage that is passed over has one predecessor, so none is walked twice."""

    topology: Topology
    metadata: Metadata
    steps: list[Step] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    leaves: list[str] = field(default_factory=list)

    def on_from(self, name: str) -> None:
        following = self.topology.successors[name]
        if not following:
            self.leaves.append(name)
        for next_name in following:
            stage = self.topology.by_name[next_name]
            is_waited_for = isinstance(stage, GateDefinition) or next_name in self.topology.joins
            if is_waited_for:
                self.steps.append(Step(next_name, topics.GATE, name))
            elif isinstance(stage, StageDefinition) and _is_skipped(stage, self.metadata):
                self.skipped.append(next_name)
                self.on_from(next_name)
            else:
                self.steps.append(Step(next_name, stage.type.topic, name))

    def route(self) -> Route:
        return Route(tuple(self.steps), tuple(self.skipped), tuple(self.leaves))
