"""Which parts of a document's way are lost: pure, from its pipeline, what has been completed, and what waits."""

from typing import NamedTuple

from medkg.contracts.topology import Topology
from medkg.storage.ledger_suspects import HeldWait, Suspect


class Gap(NamedTuple):
    """A stage that was to be asked after ``after`` (empty: after the page of the source), and of which nothing came."""

    stage: str
    after: str


def gaps_of(topology: Topology | None, suspect: Suspect) -> tuple[Gap, ...]:
    """Where a document's messages are lost, if nothing about it is unread anywhere.

    Without a pipeline (the ledger has not heard of the job's admission) all that is asked is whether anything waits.

    Walks back from every end of the pipeline that was not reached to what is completed. A branch that waits, at a gate,
    for a retry or at a join for others that may still come, is no gap; a lost branch is one, even while another waits.
    """
    if suspect.is_page_waiting or any(held.kind == "unread" and held.is_waiting for held in suspect.waits):
        return ()
    if topology is None:
        return () if any(held.is_waiting for held in suspect.waits) else (Gap(suspect.current_stage, ""),)
    walk = _Walk(topology, suspect)
    for leaf in topology.leaves:
        if leaf not in suspect.finished_leaves:
            walk.back_from(leaf)
    return tuple(walk.gaps)


class _Walk:
    def __init__(self, topology: Topology, suspect: Suspect) -> None:
        self.gaps: dict[Gap, None] = {}
        self._topology = topology
        # what the page of the source brought it through
        self._completed = suspect.completed | {topology.entry.name}
        self._waiting = [held for held in suspect.waits if held.is_waiting]
        self._seen: set[str] = set()

    def back_from(self, stage: str) -> None:
        if stage in self._seen or any(held.stage == stage and held.kind != "join" for held in self._waiting):
            return
        self._seen.add(stage)
        before = self._topology.predecessors[stage]
        is_join = stage in self._topology.joins
        come = {held.branch for held in self._waiting if held.stage == stage and held.kind == "join"}
        for name in before:
            if is_join and name in come:
                continue
            if name in self._completed:
                self.gaps[Gap(stage, "" if name == self._topology.entry.name else name)] = None
            else:
                self.back_from(name)


def waits_to_repeat(topology: Topology, suspect: Suspect, gap: Gap) -> list[HeldWait]:
    """Rows that were released, and whose release is what got lost: at the stage itself, or at the gate before it."""
    held = [one for one in suspect.waits if not one.is_waiting]
    at_stage = [one for one in held if one.stage == gap.stage and one.branch in ("", gap.after, topology.entry.name)]
    if at_stage:
        return at_stage
    return [one for one in held if one.kind == "gate" and one.stage == gap.after]


def stages_before(topology: Topology, gap: Gap) -> tuple[str, ...]:
    """Stages whose request would lead to the lost one, nearest first; done again, they find their results."""
    found, edge = [gap.stage], [gap.after or topology.entry.name]
    while edge:
        name = edge.pop(0)
        if name and name not in found and name != topology.entry.name:
            found.append(name)
            edge += topology.predecessors[name]
    return tuple(found)
