"""Text for terminals: nothing from outside steers one, and what is shortened still shows what matters."""

import json
import re
import time
import unicodedata
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.text import Text

from medkg.cli.terminal import ago, clean, count, duration, mark, snippet, terms_of, to_json

NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
HOSTILE = st.text(st.one_of(st.characters(), st.sampled_from("\x1b\x9b[]0;m\x07\\\u202e\u2028\n\r\t\ud800")))


@given(HOSTILE, st.booleans())
def test_clean_text_has_nothing_that_steers_a_terminal(text: str, keep_lines: bool) -> None:
    found = clean(text, keep_lines=keep_lines)
    allowed = {"\n"} if keep_lines else set()
    assert not [c for c in found if unicodedata.category(c) in {"Cc", "Cs", "Zl", "Zp"} and c not in allowed]
    assert not re.search("[\u200e\u200f\u202a-\u202e\u2066-\u2069]", found)
    found.encode()


@given(HOSTILE)
def test_clean_text_stays_clean(text: str) -> None:
    assert clean(clean(text)) == clean(text)


@given(st.recursive(HOSTILE, lambda inner: st.lists(inner) | st.dictionaries(HOSTILE, inner), max_leaves=8))
def test_json_is_one_harmless_line_that_means_the_same(value: object) -> None:
    line = to_json(value)
    assert len(line.splitlines()) <= 1
    assert not any(unicodedata.category(character) in {"Cc", "Cs"} for character in line)
    assert json.loads(line) == value


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[1;31mb\x1b[0mc", "abc"),
        ("a\x1b]8;;http://x\x1b\\link\x1b]8;;\x07b", "alinkb"),
        ("a\x1b]0;never ended", "a]0;never ended"),  # without an end nothing is swallowed
        ("a\r\nb\tc  d", "a b c d"),
        ("naïve 椎間板 → [x]", "naïve 椎間板 → [x]"),
        (None, ""),
        (5, "5"),
    ],
)
def test_clean_keeps_what_can_be_read(text: object, shown: str) -> None:
    assert clean(text) == shown


def test_cleaning_and_marking_hostile_text_takes_no_more_than_linear_time() -> None:
    began = time.monotonic()
    for text in ("\x1b]" * 200_000, "\x1b[" + "0" * 400_000, "\x1b[0;" * 100_000, "a" * 400_000):
        mark(Text(clean(text)), terms_of("a aa aaa"))
        snippet(text, ("a", "aa"), 100)
    assert time.monotonic() - began < 5


@given(st.text(), st.text(), st.integers(20, 200))
def test_a_snippet_is_part_of_its_text_and_about_as_long_as_asked(text: str, query: str, width: int) -> None:
    found = snippet(text, terms_of(query), width)
    assert len(found) <= max(len(text), width) if len(text) <= width else len(found) <= width + 4
    assert found.removeprefix("… ").removesuffix(" …").strip() in text


def test_a_snippet_shows_the_stretch_with_most_of_the_words() -> None:
    text = "alpha " + "x " * 200 + "alpha beta gamma " + "y " * 200
    assert "alpha beta gamma" in snippet(text, ("alpha", "beta", "gamma"), 80)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (None, "-"),
        (-1, "0 ms"),
        (0.0042, "4 ms"),
        (3.21, "3.2 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (125, "2 min 05 s"),
        (3_600, "1 h 00 min"),
        (11_400, "3 h 10 min"),
        (270_000, "3 d 3 h"),
    ],
)
def test_durations_have_at_most_two_units(seconds: float | None, shown: str) -> None:
    assert duration(seconds) == shown


@pytest.mark.parametrize(
    ("time_text", "shown"),
    [
        ("2026-05-04T11:59:30Z", "30 s ago"),
        ("2026-05-04T11:00:00+00:00", "1 h 00 min ago"),
        ("2026-05-04T12:00:05Z", "1.0 s ago"),  # a clock that is ahead of ours
        ("2026-05-04T11:59:30", "30 s ago"),
        ("yesterday", "-"),
        (None, "-"),
    ],
)
def test_ago_reads_every_time_and_no_nonsense(time_text: str | None, shown: str) -> None:
    assert ago(time_text, NOW) == shown


def test_counts_agree_with_their_noun() -> None:
    found = [count(1, "document"), count(1_234, "document"), count(0, "entity", "entities")]
    assert found == ["1 document", "1,234 documents", "0 entities"]
