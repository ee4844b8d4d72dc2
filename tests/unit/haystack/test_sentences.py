"""Where sentences end."""

import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medkg.haystack.sentences import sentence_spans


def sentences(text: str) -> list[str]:
    return [text[start:end] for start, end in sentence_spans(text)]


@pytest.mark.parametrize(
    "text",
    [
        "Some agents, e.g. Metformin, were used.",
        "The curve (see Fig. 2 and Tab. 3) is flat.",
        "It fell (p < 0.05) within 2.5 h.",
        "We grew S. aureus and E. Coli in broth.",
        "As Smith et al. Showed, it holds.",
        "Drug vs. Placebo was compared by J. R. Smith.",
        "No. 5 was given approx. 30 times, i.e. Daily.",
        "1. Adults of either sex",
    ],
)
def test_a_full_stop_of_an_abbreviation_does_not_end_a_sentence(text: str) -> None:
    assert sentences(text) == [text]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It fell. It rose again.", ["It fell.", "It rose again."]),
        ("The p value was < 0.05. Then it rose.", ["The p value was < 0.05.", "Then it rose."]),
        ('He asked "Why?" Nobody knew!  All left.', ['He asked "Why?"', "Nobody knew!", "All left."]),
        ("It fell (by half.) 45 patients left.", ["It fell (by half.)", "45 patients left."]),
        (
            "Criteria:\n\n* Adult\n* Able; i.e. Well\n1. Third",
            ["Criteria:", "* Adult", "* Able; i.e. Well", "1. Third"],
        ),
        ("A line that\nis wrapped. Another.", ["A line that\nis wrapped.", "Another."]),
        ("\u75c5\u3002\u836f\u3002", ["\u75c5\u3002", "\u836f\u3002"]),
        ("", []),
        (" \n ", []),
    ],
)
def test_sentences_end_where_a_reader_would_end_them(text: str, expected: list[str]) -> None:
    assert sentences(text) == expected


@given(st.text(alphabet=st.sampled_from(list('aB1.!?)" \n\t-*\u3002\u00a0e'))))
def test_every_visible_character_is_in_exactly_one_sentence_in_order(text: str) -> None:
    spans = sentence_spans(text)
    assert "".join("".join(text[a:b].split()) for a, b in spans) == "".join(text.split())
    assert all(a[1] <= b[0] for a, b in pairwise(spans))
    assert all(text[a:b] == text[a:b].strip() and a < b for a, b in spans)


@pytest.mark.parametrize("unit", [". ", ".", ".)", "\n", "\n ", "S. x ", "al. T", "\u3002 ", '"'])
def test_hostile_text_is_read_in_linear_time(unit: str) -> None:
    text = " " * 50_000 + unit * (200_000 // len(unit))
    began = time.process_time()
    sentence_spans(text)
    assert time.process_time() - began < 2  # seconds; quadratic behaviour takes minutes
