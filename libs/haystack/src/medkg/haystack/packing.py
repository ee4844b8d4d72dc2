"""Packs the pieces of one text (sentences, lines, table rows) into passages of bounded size. Pure and linear."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from medkg.haystack.tokens import count_tokens, token_spans

Range = tuple[int, int]
_WORD = re.compile(r"\S+")


@dataclass(frozen=True, slots=True)
class Unit:
    """A piece ``text[start:end]`` that a passage takes whole where it fits.

    ``can_overlap``: may be repeated at the beginning of the next passage. ``header`` is a range that a passage which
    begins with this unit repeats before it: the header rows above a table row.
    """

    start: int
    end: int
    can_overlap: bool = True
    header: Range | None = None


@dataclass(frozen=True, slots=True)
class Passage:
    """``ranges`` of the text, in order and non-empty: the repeated header if there is one, then one contiguous part."""

    ranges: tuple[Range, ...]
    text: str
    token_count: int


def pack(text: str, units: Sequence[Unit], max_tokens: int, overlap: int) -> list[Passage]:
    """Passages of at most ``max_tokens`` tokens that together hold every unit, in order.

    A passage begins with up to ``overlap`` units of the one before, if they take a quarter of the bound or less.
    A unit over the bound is cut at white space, a word over the bound between tokens. Passages of one text are made
    about equally long, so that no few words are left over at the end.
    """
    units = _bounded(text, units, max_tokens)
    sizes = [count_tokens(text[unit.start : unit.end]) for unit in units]
    before = [0, *accumulate(sizes)]
    total = before[-1]
    target = total / math.ceil(total / max_tokens) if total else 0.0
    passages: list[Passage] = []
    fresh = 0
    while fresh < len(units):
        begin = _overlap_begin(units, before, fresh, overlap, max_tokens // 4) if passages else fresh
        if before[fresh + 1] - before[begin] > max_tokens:
            begin = fresh
        header = _repeated_header(units[begin])
        used = (count_tokens(text[slice(*header)]) if header else 0) + before[fresh + 1] - before[begin]
        end = fresh + 1
        while end < len(units) and used < target and used + sizes[end] <= max_tokens:
            used += sizes[end]
            end += 1
        body = (units[begin].start, units[end - 1].end)
        ranges = (header, body) if header else (body,)
        passages.append(Passage(ranges, "\n".join(text[start:stop] for start, stop in ranges), used))
        fresh = end
    return passages


def _repeated_header(first: Unit) -> Range | None:
    return first.header if first.header is not None and first.header[0] < first.start else None


def _overlap_begin(units: Sequence[Unit], before: Sequence[int], fresh: int, overlap: int, room: int) -> int:
    begin = fresh
    if not units[fresh].can_overlap:
        return fresh
    while begin > 0 and fresh - begin < overlap and units[begin - 1].can_overlap:
        if before[fresh] - before[begin - 1] > room:
            break
        begin -= 1
    return begin


def _bounded(text: str, units: Sequence[Unit], max_tokens: int) -> list[Unit]:
    """The units, cut where they are over the bound; a header that takes more than half of it is not repeated."""
    bounded: list[Unit] = []
    header_sizes: dict[Range, int] = {}
    for given in units:
        unit, room = given, max_tokens
        if (header := given.header) is not None:
            size = header_sizes.get(header)
            if size is None:
                size = header_sizes[header] = count_tokens(text[slice(*header)])
            if size > max_tokens // 2:
                unit = replace(given, header=None)
            else:
                room -= size
        # a token has at least one character: most units need no counting here
        if unit.end - unit.start <= room or count_tokens(text[unit.start : unit.end]) <= room:
            bounded.append(unit)
        else:
            bounded.extend(replace(unit, start=a, end=b, can_overlap=False) for a, b in _cut(text, unit, room))
    return bounded


def _cut(text: str, unit: Unit, room: int) -> list[Range]:
    parts: list[Range] = []
    begin = end = -1
    used = 0
    for start, stop, size in _words(text, unit, room):
        if begin >= 0 and used + size > room:
            parts.append((begin, end))
            begin, used = -1, 0
        if begin < 0:
            begin = start
        end = stop
        used += size
    if begin >= 0:
        parts.append((begin, end))
    return parts


def _words(text: str, unit: Unit, room: int) -> list[tuple[int, int, int]]:
    words: list[tuple[int, int, int]] = []
    for match in _WORD.finditer(text, unit.start, unit.end):
        tokens = token_spans(text, *match.span())
        if len(tokens) <= room:
            words.append((*match.span(), len(tokens)))
        else:
            words.extend(
                (tokens[i][0], tokens[min(i + room, len(tokens)) - 1][1], min(room, len(tokens) - i))
                for i in range(0, len(tokens), room)
            )
    return words
