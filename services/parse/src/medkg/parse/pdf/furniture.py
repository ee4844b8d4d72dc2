"""Page furniture: running heads and feet, page numbers, what is stamped on every page."""

import re
from collections import defaultdict
from collections.abc import Sequence

from medkg.parse.pdf.page import Line, Page

_MARGIN = 0.11  # of the page's height, at its top and at its foot
_DIGITS = re.compile(r"\d+")
_NUMBER = re.compile(r"(?:page\s*)?(?:\d{1,5}|[ivxlc]{1,7})(?:\s*(?:of|/)\s*\d{1,5})?", re.IGNORECASE)
_MAX_CHARACTERS = 200
_MAX_PIECES = 4  # of a row with a page number
_SAME_HEIGHT = 6.0  # points


def furniture_of(pages: Sequence[tuple[Page, Sequence[Line]]]) -> set[int]:
    """Which lines (by ``id``) belong to the pages and not to the text.

    In the margins: what stands there again at the same height of another page, but for its numbers; and a page number
    alone on the outermost row. Beyond the first page everything on the same row goes with it.
    """
    seen: dict[str, list[tuple[int, float]]] = defaultdict(list)
    margins: list[tuple[Line, str]] = []
    found: set[int] = set()
    for page, lines in pages:
        for line in lines:
            if len(line.text) <= _MAX_CHARACTERS and _is_in_margin(page, line):
                key = _DIGITS.sub("#", line.text.lower()).strip()
                seen[key].append((page.number, line.runs[0].baseline))
                margins.append((line, key))
        found |= _page_numbers(page, lines)
    found |= {id(line) for line, key in margins if _is_elsewhere(line, seen[key])}
    rows = {(line.page, round(line.runs[0].baseline)) for line, _ in margins if id(line) in found}
    beside = {id(line) for line, _ in margins if line.page > 1 and (line.page, round(line.runs[0].baseline)) in rows}
    return found | beside


def _is_in_margin(page: Page, line: Line) -> bool:
    return line.bottom < _MARGIN * page.height or line.top > (1 - _MARGIN) * page.height


def _is_elsewhere(line: Line, places: Sequence[tuple[int, float]]) -> bool:
    at = line.runs[0].baseline
    return any(page != line.page and abs(baseline - at) < _SAME_HEIGHT for page, baseline in places)


def _page_numbers(page: Page, lines: Sequence[Line]) -> set[int]:
    """A number on the first or last row of the page, with white between it and the text."""
    ordered = sorted(lines, key=lambda line: line.runs[0].baseline)
    found: set[int] = set()
    for row in (ordered, ordered[::-1]):
        outer = [line for line in row if abs(line.runs[0].baseline - row[0].runs[0].baseline) < 2] if row else []
        inner = row[len(outer)] if len(row) > len(outer) else None
        is_apart = inner is None or abs(inner.runs[0].baseline - row[0].runs[0].baseline) > 1.5 * inner.style.size
        if is_apart and len(outer) <= _MAX_PIECES:
            found |= {id(line) for line in outer if _is_in_margin(page, line) and _NUMBER.fullmatch(line.text)}
    return found
