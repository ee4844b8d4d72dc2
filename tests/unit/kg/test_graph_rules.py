"""The rules by which the graph merges what documents say: which write stands, and what an entity is called."""

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medkg.contracts.document import WriteOutcome
from medkg.storage.graph import MAX_FOLDED_NAME, fold_name
from medkg.storage.graph_reader import most_supported
from medkg.storage.graph_writer import Generation, decide

WRITTEN, UNCHANGED, SUPERSEDED = WriteOutcome.WRITTEN, WriteOutcome.UNCHANGED, WriteOutcome.SUPERSEDED


@pytest.mark.parametrize(
    ("stored", "asked", "outcome"),
    [
        (None, Generation("a", 1, "job-1"), WRITTEN),
        (Generation("a", 1, "job-1"), Generation("b", 2, "job-2"), WRITTEN),
        (Generation("a", 2, "job-2"), Generation("b", 1, "job-1"), SUPERSEDED),
        (Generation("a", 2, "job-2"), Generation("a", 1, "job-1"), SUPERSEDED),
        (Generation("a", 1, "job-1"), Generation("a", 1, "job-1"), WRITTEN),
        (Generation("a", 9, "job-1"), Generation("a", 1, "job-1"), WRITTEN),
        (Generation("a", 1, "job-1"), Generation("a", 2, "job-2"), UNCHANGED),
        (Generation("a", 1, "job-1"), Generation("b", 1, "job-1"), WRITTEN),
        (Generation("a", 1, "job-1"), Generation("b", 1, "job-2"), WRITTEN),
        (Generation("b", 1, "job-1"), Generation("a", 1, "job-2"), SUPERSEDED),
    ],
)
def test_what_a_write_does_follows_from_what_stands(
    stored: Generation | None, asked: Generation, outcome: WriteOutcome
) -> None:
    assert decide(stored, asked) is outcome


def apply(stored: Generation | None, asked: Generation) -> Generation:
    """What stands after a write, as the writer does it."""
    outcome = decide(stored, asked)
    if stored is None or (outcome is WRITTEN and stored.generation != asked.generation):
        return asked
    if outcome is UNCHANGED:
        return Generation(stored.generation, max(stored.revision, asked.revision), stored.job_id)
    return stored


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 3)), min_size=1, max_size=4))
def test_the_same_content_stands_whatever_order_jobs_write_in(writes: list[tuple[str, int]]) -> None:
    jobs = [Generation(content, revision, f"job-{n}") for n, (content, revision) in enumerate(writes)]
    ends = set()
    for order in permutations(jobs):
        stored: Generation | None = None
        for asked in (*order, *order):  # every write is delivered twice
            stored = apply(stored, asked)
        assert stored is not None
        ends.add((stored.generation, stored.revision))
    assert len(ends) == 1


@given(st.lists(st.sampled_from(["Asthma", "asthma", "Bronchial Asthma", ""]), min_size=1, max_size=8), st.randoms())
def test_a_canonical_name_does_not_depend_on_the_order_of_documents(names: list[str], random: object) -> None:
    shuffled = sorted(names, key=lambda _: random.random())  # type: ignore[attr-defined]  # st.randoms gives a Random
    assert most_supported(shuffled) == most_supported(names)


def test_the_most_frequent_name_wins_and_on_a_tie_the_first_in_code_point_order() -> None:
    assert most_supported(["b", "a", "b"]) == "b"
    assert most_supported(["b", "a", "é"]) == "a"


@given(st.text(max_size=400))
def test_a_folded_name_is_bounded_and_folding_again_changes_nothing_that_matters(name: str) -> None:
    folded = fold_name(name)
    assert len(folded) <= MAX_FOLDED_NAME
    assert "\x00" not in folded and folded == folded.strip()
    assert fold_name(f"  {name}  ") == folded or len(name) > MAX_FOLDED_NAME // 4


def test_names_that_differ_in_case_width_or_spaces_fold_together() -> None:
    wide = fold_name("\N{FULLWIDTH LATIN SMALL LETTER B}ronchial asthma")
    assert fold_name("  Bronchial \t ASTHMA ") == fold_name("bronchial asthma") == wide
