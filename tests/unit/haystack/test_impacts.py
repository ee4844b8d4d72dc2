"""Sparse term weights of one passage."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medkg.haystack.impacts import impacts, query_weight, terms_of


@given(st.text())
def test_terms_are_unique_and_sorted_and_weights_positive(text: str) -> None:
    sparse = impacts(text)
    assert list(sparse.terms) == sorted(set(sparse.terms))
    assert len(sparse.terms) == len(sparse.weights) <= 512
    assert all(weight > 0 for weight in sparse.weights)


def test_weights_grow_with_frequency_and_level_off() -> None:
    def weight(times: int) -> float:
        sparse = impacts(" ".join(["asthma"] * times + ["filler"] * (40 - times)))
        return dict(zip(sparse.terms, sparse.weights, strict=True))["asthma"]

    assert weight(1) < weight(2) < weight(8) < 2.2
    assert weight(2) - weight(1) > weight(8) - weight(7)


def test_a_longer_passage_weighs_a_word_less() -> None:
    short, long = impacts("asthma " + "filler " * 10), impacts("asthma " + "filler " * 400)
    assert short.weights[0] > long.weights[0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("IL-6 levels", ["il", "6", "il-6", "level"]),
        ("Studies of viruses", ["studi", "virus"]),
        ("pneumococcus analysis class", ["pneumococcu", "analysi", "class"]),
        ("\uff21\uff22 x_y \u2014", ["ab", "x", "y"]),
        ("", []),
    ],
)
def test_terms_are_folded_and_compounds_kept_beside_their_parts(text: str, expected: list[str]) -> None:
    assert terms_of(text) == expected


def test_a_word_of_the_title_counts_more_than_one_of_the_text() -> None:
    sparse = impacts("asthma and sepsis", title="Sepsis")
    weights = dict(zip(sparse.terms, sparse.weights, strict=True))
    assert weights["sepsi"] > weights["asthma"]


def test_words_that_are_everywhere_have_no_weight() -> None:
    assert impacts("it was the and of").terms == ()


def test_a_rare_term_of_a_query_weighs_more_and_none_weighs_less_than_nothing() -> None:
    assert query_weight(1000, 1) > query_weight(1000, 500) > query_weight(1000, 1000) > 0
