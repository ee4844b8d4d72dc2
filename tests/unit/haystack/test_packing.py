"""Passages of bounded size."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from medkg.haystack.packing import Unit, pack
from medkg.haystack.sentences import sentence_spans
from medkg.haystack.tokens import count_tokens

WORDS = ["alpha", "p53", "0.05", "immunohistochemistry", "\u75c5\u836f", "x" * 90, "-"]
PROSE = st.lists(
    st.lists(
        st.sampled_from(["alpha", "p53", "0.05", "immunohistochemistry", "\u75c5\u836f", "x" * 90, "-"]), max_size=30
    ).map(" ".join),
    max_size=12,
).map(". The ".join)


def units_of(text: str) -> list[Unit]:
    return [Unit(start, end) for start, end in sentence_spans(text)]


@given(PROSE, st.integers(8, 64), st.integers(0, 3))
def test_passages_keep_the_bound_and_lose_no_word(text: str, max_tokens: int, overlap: int) -> None:
    passages = pack(text, units_of(text), max_tokens, overlap)
    covered = [False] * len(text)
    for passage in passages:
        assert passage.token_count == count_tokens(passage.text) <= max_tokens
        assert passage.text == "\n".join(text[start:end] for start, end in passage.ranges)
        for start, end in passage.ranges:
            covered[start:end] = [True] * (end - start)
    assert all(seen or character.isspace() for seen, character in zip(covered, text, strict=True))


@given(PROSE, st.integers(8, 64))
def test_without_overlap_passages_follow_each_other(text: str, max_tokens: int) -> None:
    ranges = [piece for passage in pack(text, units_of(text), max_tokens, 0) for piece in passage.ranges]
    assert all(before[1] <= after[0] for before, after in pairwise(ranges))


def test_a_passage_begins_with_the_last_sentence_of_the_one_before() -> None:
    text = " ".join(f"Sentence number {n} is of usual length." for n in range(12))
    passages = pack(text, units_of(text), 40, 1)
    for before, after in pairwise(passages):
        assert before.text.endswith(after.text.split(". ")[0].rstrip(".") + ".")


def test_the_last_passage_is_not_a_crumb() -> None:
    text = " ".join(f"Sentence number {n:02} is of usual length." for n in range(11))
    sizes = [passage.token_count for passage in pack(text, units_of(text), count_tokens(text) - 3, 0)]
    assert len(sizes) == 2
    assert min(sizes) > max(sizes) / 2


def test_rows_are_repeated_under_their_header_and_a_huge_header_is_not() -> None:
    header = "arm | outcome"
    rows = [f"arm {n} | value {n}" for n in range(20)]
    text = "\n".join([header, *rows])
    end = len(header)
    units = [Unit(0, end, can_overlap=False)]
    for row in rows:
        units.append(Unit(end + 1, end + 1 + len(row), can_overlap=False, header=(0, len(header))))
        end = units[-1].end
    assert all(p.text.startswith(header) and p.token_count <= 32 for p in pack(text, units, 32, 1))
    huge = pack(text, [Unit(u.start, u.end, False, (0, 200) if u.header else None) for u in units], 32, 1)
    assert [p.text.startswith(header) for p in huge] == [True] + [False] * (len(huge) - 1)
