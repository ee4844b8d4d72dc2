"""What passages are filtered by, as it is written and as it is asked for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medkg.contracts.context import Metadata
from medkg.contracts.errors import ContractError
from medkg.haystack.filtering import MAX_VALUES, checked, conditions
from medkg.haystack.stores import Filters
from medkg.haystack.writes import Facets, facets_of, phases_in


@pytest.mark.parametrize(
    ("written", "compared"),
    [
        ("PHASE3", ("phase3",)),
        ("phase 3", ("phase3",)),
        ("Phase III", ("phase3",)),
        ("3", ("phase3",)),
        ("PHASE2/PHASE3", ("phase2", "phase3")),
        ("Phase 2|Phase II", ("phase2",)),
        ("EARLY_PHASE1", ("earlyphase1",)),
        ("Early Phase 1", ("earlyphase1",)),
        ("Phase IIb", ("phase2b",)),
        ("NA", ("na",)),
        ("Not Applicable", ("notapplicable",)),
        ("phase 5", ("phase5",)),
        ("", ()),
        ("--", ("--",)),
        (3, ()),
        (None, ()),
    ],
)
def test_a_phase_is_the_same_however_it_is_written(written: object, compared: tuple[str, ...]) -> None:
    assert phases_in(written) == compared


def test_facets_are_read_from_metadata_and_what_is_no_value_is_none() -> None:
    metadata: Metadata = {"source": "trials", "year": 2020, "conditions": "Asthma |COPD|| asthma", "phase": "PHASE4"}
    assert facets_of(metadata) == Facets("trials", 2020, ("asthma", "copd"), ("phase4",), retracted=False)
    assert facets_of({"year": True, "condition": 3, "phase": None, "retracted": 1}) == Facets()
    assert len(facets_of({"conditions": "|".join(map(str, range(1000)))}).conditions) == 32


@given(st.text(max_size=50))
def test_a_filter_that_says_nothing_lets_nothing_through(value: str) -> None:
    filters = checked(Filters(phases=(value,)))
    assert filters.phases
    assert filters  # a condition is made of it


@given(st.text(max_size=50))
def test_no_value_of_a_filter_gets_into_the_sql(value: str) -> None:
    same = {conditions(checked(Filters((v,), sections=(v,), conditions=(v,))))[:2] for v in (value, "a")}
    assert len(same) == 1
    of_document, of_passage, values = conditions(checked(Filters(phases=(value,))))
    assert (of_document.replace(", ?", "").count("?"), of_passage) == (1, "")
    assert of_document.count("?") == len(values)


def test_more_values_than_anybody_types_are_refused() -> None:
    with pytest.raises(ContractError, match="at most"):
        checked(Filters(conditions=("a",) * (MAX_VALUES + 1)))
