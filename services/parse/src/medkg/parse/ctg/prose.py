"""The registry's long texts: paragraphs, lists, and the two halves of the eligibility criteria.

They are written by hand in a little Markdown: a blank line ends a paragraph, ``*`` or a number begins an item, and
punctuation is escaped (``\\>``).
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

_ESCAPED = re.compile(r"\\([!-/:-@\[-`{-~])")
# A capital with a full stop is no marker: "E. coli infection".
_MARKER = re.compile(
    r"\s*(?:[*•·▪◦‣–-]|\d{1,3}[.)]|(?:[a-z]|[ivx]{1,5})\)|\((?:\d{1,3}|[a-z]|[ivx]{1,5})\))\s+(?=\S)"  # noqa: RUF001 - as found
)
_MAX_HEADING = 100  # characters; what is longer is a sentence

# The registry asks for these two headings by name, and its records come in English alone.
_HALF = re.compile(r"\b(inclusion|exclusion)\b", re.IGNORECASE)
_HEADING_THEN_TEXT = re.compile(r"((?:inclusion|exclusion)\s+criteria)\s*:\s*(\S.*)", re.IGNORECASE | re.DOTALL)


class Piece(NamedTuple):
    """A paragraph or an item of a list, without its marker."""

    text: str
    is_item: bool


class Criterion(NamedTuple):
    """One criterion: the heading it stands under as it is written, and ``inclusion``, ``exclusion`` or neither."""

    heading: str
    kind: str
    text: str


def unescape(text: str) -> str:
    """Without the backslashes before punctuation (CommonMark 0.31, section 2.4)."""
    return _ESCAPED.sub(r"\1", text) if "\\" in text else text


def pieces(text: str) -> Iterator[Piece]:
    """Paragraphs and items in order. A line without a marker goes on with what stands right above it."""
    held: list[str] = []
    is_item = False
    for line in unescape(text).splitlines():
        marker = _MARKER.match(line)
        if marker is not None or not line.strip():
            if held:
                yield Piece(" ".join(held), is_item)
            held, is_item = ([], False) if marker is None else ([line[marker.end() :]], True)
        else:
            held.append(line.strip())
    if held:
        yield Piece(" ".join(held), is_item)


def criteria(text: str) -> Iterator[Criterion]:
    """The eligibility criteria one by one, each with the half it belongs to.

    What stands before any heading belongs to neither half. What looks like a heading, but has no criterion below it, is
    one itself.
    """
    heading, kind, bare = "", "", ""
    for piece in pieces(_headings_apart(text)):
        found = _HEADING_THEN_TEXT.fullmatch(piece.text.strip())
        half = _half_of(piece) if found is None else None
        if half is not None or found is not None:
            if bare:
                yield Criterion("", kind, bare)
            bare = piece.text if found is None else ""
        if half is not None:
            heading, kind = piece.text.strip().rstrip(":").strip(), half
        elif found is not None:
            heading, kind = found.group(1), found.group(1).split()[0].lower()
            yield Criterion(heading, kind, found.group(2))
        else:
            bare = ""
            yield Criterion(heading, kind, piece.text)
    if bare:
        yield Criterion("", kind, bare)


def _headings_apart(text: str) -> str:
    """With a blank line around every line that is a heading, so that it does not run into its neighbours."""
    return "\n".join(f"\n{line}\n" if _half_of(Piece(line, False)) is not None else line for line in text.splitlines())


def _half_of(piece: Piece) -> str | None:
    """``inclusion`` or ``exclusion`` for a heading of criteria (empty for one of both), None for everything else."""
    text = piece.text.strip().lstrip("*#_ ").rstrip("*_ ")
    if len(text) > _MAX_HEADING or text.endswith((".", ";", ",")):
        return None
    halves = {half.lower() for half in _HALF.findall(text)}
    is_named = "criteri" in text.lower() and not piece.is_item
    if not halves or not (text.endswith(":") or is_named):
        return None
    return halves.pop() if len(halves) == 1 else ""
