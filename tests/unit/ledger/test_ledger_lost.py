"""Where on its way a document is lost: decided from its pipeline, what is completed and what waits."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.ledger.histories import topologies

from medkg.contracts.topology import Topology
from medkg.ledger.lost import Gap, gaps_of, stages_before, waits_to_repeat
from medkg.storage.ledger_suspects import HeldWait, Suspect

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def suspect(*completed: str, waits: tuple[HeldWait, ...] = (), **fields: Any) -> Suspect:
    given: dict[str, Any] = {
        "job_id": "j",
        "doc_id": "d",
        "tenant_id": "t",
        "digest": "x",
        "current_stage": "",
        "last_event_at": NOON,
        "first_event_at": NOON,
        "completed": frozenset(completed),
        "finished_leaves": frozenset(),
        "waits": waits,
        "page_wait": "p",
        "is_page_waiting": False,
    }
    return Suspect(**(given | fields))


def held(kind: str, stage: str, branch: str = "", *, is_waiting: bool = True) -> HeldWait:
    return HeldWait(f"{kind}-{stage}-{branch}", kind, stage, branch, is_waiting)


def of(name: str) -> Topology:
    return topologies()[name]


def test_on_a_chain_the_stage_after_the_last_completed_one_is_lost() -> None:
    chain = of("auto")
    names = [stage.name for stage in chain.stages]
    assert gaps_of(chain, suspect()) == (Gap(names[1], ""),)
    for number in range(1, len(names) - 1):
        assert gaps_of(chain, suspect(*names[1 : number + 1])) == (Gap(names[number + 1], names[number]),)
    assert gaps_of(chain, suspect(finished_leaves=frozenset({names[-1]}))) == ()


def test_what_waits_is_not_lost() -> None:
    two_phase = of("pdf-two-phase")
    before = ("download_pdf",)
    assert gaps_of(two_phase, suspect(*before, waits=(held("gate", "pdf_gate"),))) == ()
    assert gaps_of(two_phase, suspect(waits=(held("retry", "download_pdf"),))) == ()
    assert gaps_of(two_phase, suspect(waits=(held("unread", "anything"),))) == ()
    assert gaps_of(two_phase, suspect(is_page_waiting=True)) == ()
    released = held("gate", "pdf_gate", is_waiting=False)
    lost = suspect(*before, waits=(released,))
    assert gaps_of(two_phase, lost) == (Gap("pdf_gate", "download_pdf"),)
    assert waits_to_repeat(two_phase, lost, Gap("pdf_gate", "download_pdf")) == [released]
    passed = suspect(*before, "pdf_gate", waits=(released,))
    assert gaps_of(two_phase, passed) == (Gap("chunk", "pdf_gate"),)
    assert waits_to_repeat(two_phase, passed, Gap("chunk", "pdf_gate")) == [released]


def test_a_lost_branch_is_found_while_another_one_waits() -> None:
    branching = of("branching")
    arrived = held("join", "embed", "ir_validation")
    waiting = suspect("parse", "extract", waits=(arrived,), finished_leaves=frozenset({"kg"}))
    assert gaps_of(branching, waiting) == (Gap("chunk", "parse"),)
    both = suspect("parse", "chunk", "extract", waits=(arrived, held("join", "embed", "chunk")))
    assert gaps_of(branching, both) == (Gap("kg", "extract"),)
    assert gaps_of(branching, suspect("parse", waits=(held("retry", "chunk"),))) == (
        Gap("ir_validation", "parse"),
        Gap("extract", "parse"),
    )


def test_a_join_whose_release_is_lost_is_released_once_more() -> None:
    branching = of("branching")
    released = tuple(held("join", "embed", name, is_waiting=False) for name in ("chunk", "ir_validation"))
    lost = suspect("parse", "chunk", "ir_validation", waits=released, finished_leaves=frozenset({"kg"}))
    gaps = gaps_of(branching, lost)
    assert set(gaps) == {Gap("embed", "chunk"), Gap("embed", "ir_validation")}
    assert [one for gap in gaps for one in waits_to_repeat(branching, lost, gap)] == [released[0], released[1]]


def test_a_request_is_looked_for_from_the_lost_stage_backwards() -> None:
    assert stages_before(of("auto"), Gap("embed", "chunk")) == ("embed", "chunk", "ir_validation", "parse")
    assert stages_before(of("branching"), Gap("embed", "chunk")) == ("embed", "chunk", "parse")


@pytest.mark.parametrize("name", sorted(topologies()))
@given(data=st.data())
def test_every_end_that_is_not_reached_has_a_gap_or_somebody_who_waits(name: str, data: st.DataObject) -> None:
    """Whatever was completed in the order of the pipeline: nothing that is lost goes unnoticed."""
    topology = of(name)
    done: set[str] = {topology.entry.name}
    for stage in topology.stages:
        ready = all(before in done for before in topology.predecessors[stage.name])
        if ready and data.draw(st.booleans()):
            done.add(stage.name)
    ends = frozenset(done & set(topology.leaves))
    gaps = gaps_of(topology, suspect(*done, finished_leaves=ends))
    assert bool(gaps) == (ends != set(topology.leaves))
    for gap in gaps:
        assert gap.stage not in done
        assert not gap.after or gap.after in done
