"""Text for terminals: data from outside made harmless, numbers and times made readable, words of a query marked."""

import json
import re
from bisect import bisect_left
from datetime import UTC, datetime
from typing import Any

from rich.text import Text

# Escape sequences (ECMA-48): CSI, terminated strings (OSC, DCS, SOS, PM, APC), two-character ones.
_ESCAPES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]{0,64}[ -/]{0,8}[@-~]"
    r"|\x1b[\]PX^_][^\x07\x1b]{0,2048}(?:\x07|\x1b\\)"
    r"|\x1b[@-Z\\^_a-z]"
)
# Controls but tab and newline, bidirectional overrides, line separators, byte order marks, lone surrogates.
_UNSEEN = "\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff"
_CONTROLS = re.compile(f"[\x00-\x08\x0b-\x1f{_UNSEEN}]")
_UNSEEN_IN_JSON = re.compile(f"[{_UNSEEN}]")
_WORD = re.compile(r"\w+")
_COMMON = frozenset(
    {"a", "an", "and", "are", "as", "at", "be", "by", "do", "does", "for", "from", "how", "in", "is", "it", "of"}
    | {"on", "or", "that", "the", "to", "was", "what", "which", "with"}
)
_MAX_TERMS = 32
_SPANS = ((60, 1, 1, "{} s"), (3600, 60, 1, "{} min {:02d} s"), (86_400, 3600, 60, "{} h {:02d} min"))


def clean(value: object, *, keep_lines: bool = False) -> str:
    """Text from outside, safe to print: no escape sequence, no control or direction-changing character."""
    text = "" if value is None else str(value)
    text = _CONTROLS.sub("", _ESCAPES.sub("", text.replace("\r\n", "\n").replace("\r", "\n")))
    return text.replace("\t", " ") if keep_lines else " ".join(text.split())


def to_json(value: Any) -> str:
    """One line of JSON in which nothing can steer a terminal."""
    line = json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)
    return _UNSEEN_IN_JSON.sub(lambda match: f"\\u{ord(match.group()):04x}", line)


def terms_of(query: str) -> tuple[str, ...]:
    """The words of a query that are worth marking in a passage."""
    words = dict.fromkeys(word for word in _WORD.findall(query.casefold()) if len(word) > 1 and word not in _COMMON)
    return tuple(words)[:_MAX_TERMS]


def mark(text: Text, terms: tuple[str, ...], style: str = "bold yellow") -> Text:
    """``text`` with every word that begins with a term in ``style``."""
    for start, end in _matches(text.plain, terms):
        text.stylize(style, start, end)
    return text


def snippet(text: str, terms: tuple[str, ...], width: int) -> str:
    """At most about ``width`` characters of ``text``: the stretch that holds most of the terms, cut between words."""
    if len(text) <= width:
        return text
    starts = [start for start, _ in _matches(text, terms)]
    counts = [bisect_left(starts, start + width) - number for number, start in enumerate(starts)]
    first = starts[counts.index(max(counts))] if counts else 0
    begin = max(0, min(first - width // 6, len(text) - width))  # some words of context before the first match
    end = begin + width
    if begin:
        begin = text.find(" ", begin, begin + 40) + 1 or begin
    if end < len(text):
        cut = text.rfind(" ", max(begin, end - 40), end)
        end = cut if cut > begin else end
    return ("… " if begin else "") + text[begin:end].strip() + (" …" if end < len(text) else "")


def _matches(text: str, terms: tuple[str, ...]) -> list[tuple[int, int]]:
    if not terms:
        return []
    stems = sorted({re.escape(term.rstrip("s") if len(term) > 3 else term) for term in terms}, key=len, reverse=True)
    pattern = re.compile(rf"\b(?:{'|'.join(stems)})\w{{0,4}}\b", re.IGNORECASE)
    return [match.span() for match in pattern.finditer(text)]


def parse_time(value: str | None) -> datetime | None:
    """An RFC 3339 time, or None where there is none to be read."""
    try:
        time = datetime.fromisoformat(value) if value else None
    except ValueError:
        return None
    return time.replace(tzinfo=UTC) if time is not None and time.tzinfo is None else time


def duration(seconds: float | None) -> str:
    """A span of time in at most two units: ``4 ms``, ``3.2 s``, ``2 min 05 s``, ``3 h 10 min``, ``5 d 3 h``."""
    if seconds is None:
        return "-"
    if seconds < 10:
        return f"{seconds:.1f} s" if seconds >= 1 else f"{max(seconds, 0) * 1000:.0f} ms"
    whole = round(seconds)
    for under, unit, small_unit, text in _SPANS:
        if whole < under:
            return text.format(whole // unit, whole % unit // small_unit)
    return f"{whole // 86_400} d {whole % 86_400 // 3600} h"


def ago(value: str | None, now: datetime) -> str:
    """How long since an RFC 3339 time."""
    time = parse_time(value)
    return "-" if time is None else f"{duration(max(1.0, round((now - time).total_seconds())))} ago"


def count(number: int, noun: str, plural: str = "") -> str:
    """``1 document``, ``2 documents``."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def rate(per_second: float | None) -> str:
    if not per_second:
        return ""
    return f"{per_second:.0f}/s" if per_second >= 10 else f"{per_second:.1f}/s"


def short(identifier: str | None) -> str:
    """The beginning of a long id, enough to name it again."""
    return clean(identifier)[:12]
