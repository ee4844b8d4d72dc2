"""Packs the pieces of one text (sentences, lines, table rows) into passages of bounded size. Pure and linear."""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import NamedTuple

from medkg.haystack.tokens import WORD_PIECES, Tokenizer

Range = tuple[int, int]
_WORD = re.compile(r"\S+")


@dataclass(frozen=True, slots=True)
class Unit:
    """A piece ``text[start:end]`` that a passage takes whole where it fits.

    ``can_overlap``: may be repeated at the beginning of the next passage. ``header`` is a range that a passage which
    begins with this unit repeats before it: the header rows above a table row. ``starts_passage``: begins a passage,
    even if the one before has room, and is never repeated into one.
    """

    start: int
    end: int
    can_overlap: bool = True
    header: Range | None = None
    starts_passage: bool = False


@dataclass(frozen=True, slots=True)
class Passage:
    """``ranges`` of the text, in order and non-empty: the repeated header if there is one, then one contiguous part."""

    ranges: tuple[Range, ...]
    text: str
    token_count: int


def pack(
    text: str, units: Sequence[Unit], max_tokens: int, overlap: int, tokenizer: Tokenizer = WORD_PIECES
) -> list[Passage]:
    """Passages of at most ``max_tokens`` tokens that together hold every unit, in order.

    A passage begins with up to ``overlap`` units of the one before, if they take a quarter of the bound or less.
    A unit over the bound is cut at white space, a word over the bound between tokens. Passages between two units that
    start one are made about equally long, so that no few words are left over at the end. ``tokenizer`` counts.
    """
    passages: list[Passage] = []
    begin = 0
    for end in range(1, len(units) + 1):
        if end == len(units) or units[end].starts_passage:
            passages.extend(_pack(text, _bounded(text, units[begin:end], max_tokens, tokenizer), max_tokens, overlap))
            begin = end
    return passages


def _pack(text: str, units: Sequence["_Sized"], max_tokens: int, overlap: int) -> Iterator[Passage]:
    before = [0, *accumulate(unit.tokens for unit in units)]
    total = before[-1]
    target = total / math.ceil(total / max_tokens) if total else 0.0
    fresh = 0
    while fresh < len(units):
        begin = _overlap_begin(units, before, fresh, overlap, max_tokens // 4)
        if before[fresh + 1] - before[begin] > max_tokens:
            begin = fresh
        header = _repeated_header(units[begin].unit)
        used = (units[begin].header_tokens if header else 0) + before[fresh + 1] - before[begin]
        end = fresh + 1
        while end < len(units) and used < target and used + units[end].tokens <= max_tokens:
            used += units[end].tokens
            end += 1
        body = (units[begin].unit.start, units[end - 1].unit.end)
        ranges = (header, body) if header else (body,)
        yield Passage(ranges, "\n".join(text[start:stop] for start, stop in ranges), used)
        fresh = end


def _repeated_header(first: Unit) -> Range | None:
    return first.header if first.header is not None and first.header[0] < first.start else None


def _overlap_begin(units: Sequence["_Sized"], before: Sequence[int], fresh: int, overlap: int, room: int) -> int:
    begin = fresh
    if not units[fresh].unit.can_overlap:
        return fresh
    while begin > 0 and fresh - begin < overlap and units[begin - 1].unit.can_overlap:
        if before[fresh] - before[begin - 1] > room:
            break
        begin -= 1
    return begin


class _Sized(NamedTuple):
    unit: Unit
    tokens: int
    header_tokens: int


def _bounded(text: str, units: Sequence[Unit], max_tokens: int, tokenizer: Tokenizer) -> list[_Sized]:
    """The units, cut where they are over the bound; a header that takes more than half of it is not repeated."""
    bounded: list[_Sized] = []
    header_sizes: dict[Range, int] = {}
    for given in units:
        unit, header_tokens = given, 0
        if (header := given.header) is not None:
            if header not in header_sizes:
                header_sizes[header] = tokenizer.count(text[slice(*header)])
            header_tokens = header_sizes[header]
            if header_tokens > max_tokens // 2:
                unit, header_tokens = replace(given, header=None), 0
        room = max_tokens - header_tokens
        tokens = tokenizer.count(text[unit.start : unit.end])
        if tokens <= room:
            bounded.append(_Sized(unit, tokens, header_tokens))
            continue
        for start, end, size in _cut(text, unit, room, tokenizer):
            bounded.append(_Sized(replace(unit, start=start, end=end, can_overlap=False), size, header_tokens))
    return bounded


def _cut(text: str, unit: Unit, room: int, tokenizer: Tokenizer) -> list[tuple[int, int, int]]:
    parts: list[tuple[int, int, int]] = []
    begin = end = -1
    used = 0
    for start, stop, size in _words(text, unit, room, tokenizer):
        if begin >= 0 and used + size > room:
            parts.append((begin, end, used))
            begin, used = -1, 0
        if begin < 0:
            begin = start
        end = stop
        used += size
    if begin >= 0:
        parts.append((begin, end, used))
    return parts


def _words(text: str, unit: Unit, room: int, tokenizer: Tokenizer) -> Iterator[tuple[int, int, int]]:
    for match in _WORD.finditer(text, unit.start, unit.end):
        start, end = match.span()
        tokens = tokenizer.spans(text, start, end)
        if len(tokens) <= room:
            yield start, end, len(tokens)
            continue
        # every character belongs to the token that begins at or before it: none is lost between two tokens
        cuts = [start, *(tokens[i][0] for i in range(room, len(tokens), room)), end]
        for number, (a, b) in enumerate(pairwise(cuts)):
            if a < b:
                yield a, b, min(room, len(tokens) - number * room)
