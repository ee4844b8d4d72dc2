"""Routing: on any graph every stage is reached exactly by its predecessors, and every leaf ends exactly once."""

from collections import Counter, deque

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from medkg.contracts import topics
from medkg.contracts.messages import Artefact
from medkg.contracts.routing import Route, Step, artefacts_for, route_after, route_into, topic_of
from medkg.contracts.topology import Topology

SKIPPED = {"skip": True}


def name_of(number: int) -> str:
    return "s" + "abcdefghijklmnopqrstuvwxyz"[number]


@st.composite
def graphs(draw: st.DrawFn) -> Topology:
    """Any graph with one beginning; some stages are gates, some passed over when the metadata says ``skip``."""
    size = draw(st.integers(1, 10))
    stages: list[dict[str, object]] = [{"name": name_of(0), "type": "IngestStage"}]
    for number in range(1, size):
        before = draw(st.sets(st.integers(0, number - 1), min_size=1, max_size=3))
        stage: dict[str, object] = {"name": name_of(number), "depends_on": [name_of(each) for each in sorted(before)]}
        kind = draw(st.sampled_from(["plain", "when", "gate"]))
        if kind == "gate":
            stage |= {"type": "Gate", "condition": {"ledger_field": "pdf_ir_ready"}, "resume_stage": "sa"}
        else:
            stage["type"] = "ParseStage"
            if kind == "when":
                stage["when"] = {"field": "skip", "exists": False}
        stages.append(stage)
    return Topology.model_validate({"version": "1.0", "name": "t", "stages": stages})


class Fleet:
    """Workers and a gate-router in miniature: runs one document through a topology by its routes alone."""

    def __init__(self, topology: Topology, metadata: dict[str, str | int | float | bool | None]) -> None:
        self.topology, self.metadata = topology, metadata
        self.ran: list[str] = []
        self.skipped: list[str] = []
        self.leaves: list[str] = []
        self.arrived: dict[str, set[str]] = {}
        self.asked: deque[Step] = deque()

    def run(self, pick_last: bool = False) -> "Fleet":
        self._work(self.topology.entry.name)
        while self.asked:
            step = self.asked.pop() if pick_last else self.asked.popleft()
            if step.topic == topics.GATE:
                self._arrive(step)
            else:
                self._work(step.stage)
        return self

    def _work(self, stage: str) -> None:
        assert stage not in self.ran, f"{stage} ran twice"
        self.ran.append(stage)
        self._follow(route_after(self.topology, stage, self.metadata))

    def _arrive(self, step: Step) -> None:
        arrived = self.arrived.setdefault(step.stage, set())
        assert step.arrived_from not in arrived, "a branch came twice"
        arrived.add(step.arrived_from)
        if arrived == set(self.topology.predecessors[step.stage]):
            if self.topology.by_name[step.stage].type == "Gate":
                self._work(step.stage)
            else:
                self._follow(route_into(self.topology, step.stage, self.metadata))

    def _follow(self, route: Route) -> None:
        self.asked.extend(route.steps)
        self.skipped.extend(route.skipped)
        self.leaves.extend(route.finished_leaves)


@given(graphs(), st.booleans(), st.booleans())
def test_every_stage_runs_or_is_passed_over_once_and_every_leaf_ends_once(
    topology: Topology, is_skipping: bool, pick_last: bool
) -> None:
    fleet = Fleet(topology, dict(SKIPPED) if is_skipping else {}).run(pick_last)

    assert Counter(fleet.ran + fleet.skipped) == Counter(list(topology.by_name))
    assert Counter(fleet.leaves) == Counter(topology.leaves)


@given(graphs())
def test_without_predicates_a_stage_is_reached_exactly_by_its_predecessors(topology: Topology) -> None:
    reached: dict[str, list[str]] = {name: [] for name in topology.by_name}
    for name in topology.by_name:
        for step in route_after(topology, name, {}).steps:
            assert step.arrived_from == name
            assert step.topic == topic_of(topology, step.stage)
            reached[step.stage].append(name)

    assert {name: sorted(found) for name, found in reached.items()} == {
        name: sorted(before) for name, before in topology.predecessors.items()
    }


@given(graphs(), st.booleans())
def test_passing_stages_over_equals_removing_them_and_joining_their_neighbours(
    topology: Topology, pick_last: bool
) -> None:
    fleet = Fleet(topology, dict(SKIPPED)).run(pick_last)
    left = {name for name in topology.by_name if name not in fleet.skipped}

    assert left == set(fleet.ran)
    for name in left:
        assert _kept_before(topology, name, left) <= set(fleet.ran[: fleet.ran.index(name)])


def _kept_before(topology: Topology, name: str, left: set[str]) -> set[str]:
    """What the stage would depend on if those that are passed over were not there."""
    found: set[str] = set()
    for before in topology.predecessors[name]:
        found |= {before} if before in left else _kept_before(topology, before, left)
    return found


def diamond(**conditions: object) -> Topology:
    """ingest -> (left, right) -> join -> end; a condition by stage name."""
    graph = {"left": ["ingest"], "right": ["ingest"], "join": ["left", "right"], "end": ["join"]}
    stages: list[dict[str, object]] = [{"name": "ingest", "type": "IngestStage"}]
    for name, before in graph.items():
        stage: dict[str, object] = {"name": name, "type": "ParseStage", "depends_on": before}
        stages.append(stage | ({"when": {"field": "skip", "exists": False}} if name in conditions else {}))
    return Topology.model_validate({"version": "1.0", "name": "t", "stages": stages})


def test_branches_that_are_passed_over_still_arrive_at_the_join_each_for_itself() -> None:
    """Else the join would wait for ever: it counts one arrival for each predecessor."""
    route = route_after(diamond(left=1, right=1), "ingest", dict(SKIPPED))

    assert route.skipped == ("left", "right")
    assert route.steps == (Step("join", topics.GATE, "left"), Step("join", topics.GATE, "right"))


def test_a_join_is_not_passed_over_before_all_branches_have_ended() -> None:
    topology = diamond(join=1)
    route = route_after(topology, "left", dict(SKIPPED))

    assert route == Route((Step("join", topics.GATE, "left"),))
    assert route_into(topology, "join", dict(SKIPPED)) == Route((Step("end", "medkg.parse.v1", "join"),), ("join",))
    assert route_into(topology, "join", {}).steps[0][:2] == ("join", "medkg.parse.v1")


def test_a_last_stage_that_is_passed_over_is_a_finished_leaf() -> None:
    assert route_after(diamond(end=1), "join", dict(SKIPPED)) == Route((), ("end",), ("end",))


def test_what_a_stage_reads_stays_inline_and_the_rest_travels_as_a_reference() -> None:
    topology = Topology.model_validate(
        {
            "version": "1.0",
            "name": "t",
            "stages": [
                {"name": "ingest", "type": "IngestStage"},
                {"name": "chunk", "type": "ChunkStage", "depends_on": ["ingest"]},
                {"name": "embed", "type": "EmbedStage", "depends_on": ["chunk"]},
                {"name": "extract", "type": "ExtractStage", "depends_on": ["embed"]},
            ],
        }
    )
    inline = b'{"x":1}'
    artefacts = {
        kind: Artefact(kind=kind, sha256="0" * 64, size_bytes=7, key=f"{kind}/key", inline=msgspec.Raw(inline))
        for kind in ("document", "chunks", "quality")
    }
    found = artefacts_for(topology, "embed", artefacts)

    assert set(found) == {"document", "chunks"}  # nothing ahead reads the quality report
    assert found["chunks"].is_inline
    assert not found["document"].is_inline
    unstored = {"document": Artefact(kind="document", sha256="0" * 64, size_bytes=7, inline=msgspec.Raw(inline))}
    assert artefacts_for(topology, "embed", unstored)["document"].is_inline  # there is no other copy
