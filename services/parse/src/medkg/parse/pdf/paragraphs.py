"""From lines in reading order to paragraphs: where one ends, and what kind of thing it is."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from itertools import pairwise
from statistics import median

from medkg.parse.pdf.names import is_known
from medkg.parse.pdf.page import Box, Line, Style, around

_CAPTION = re.compile(
    r"(?:supplementary |additional |extended data )?(?:fig(?:ure|\.)|table|scheme|box|algorithm|chart)\s*"
    r"(?:S?\d+|[IVX]+)\w?\s*(?:[.:|]|[-\u2013\u2014]\s|$|[A-Z(])",
    re.IGNORECASE,
)
_ENTRY = re.compile(r"(?:\[\d{1,4}\]|\d{1,4}[.)]?\s+(?=[A-Z]))")
_SUBSECTION = re.compile(r"\d{1,2}(?:\.\d{1,2}){1,3}\.?\s+[A-Z]")
_BULLET = re.compile(r"[\u2022\u25cf\u25aa\u25a0\u2013]\s+|\(?(?:[a-z]|[ivx]{1,4}|\d{1,2})\)\s+")
_SMALL = 0.94  # of the size of running text: what is smaller is small print
_MAX_BETWEEN = 4  # paragraphs that may stand between two rows of one table
_CELL_CHARACTERS = 90
_ENDS = (".", "!", "?", ":", ";", ".\u201d", ".\u2019", '."', ".)")


class Kind(Enum):
    TEXT = auto()
    HEADING = auto()
    CAPTION = auto()
    TABLE = auto()
    ITEM = auto()
    NOTE = auto()  # small print: footnotes, licences, what stands below a table


@dataclass(slots=True)
class Paragraph:
    """Rows of lines; a row has several where there is more than a space between them."""

    rows: list[list[Line]]
    kind: Kind = Kind.TEXT
    first_rows: int = 0  # where it goes on in another column: how many stand in the first one

    def go_on(self, rows: list[list[Line]]) -> None:
        """Add what follows, in this column or the next one."""
        last, first = self.rows[-1][0], rows[0][0]
        is_below = first.page == last.page and first.top > last.top and first.x0 < last.x1 and first.x1 > last.x0
        if not is_below:
            self.first_rows = self.first_rows or len(self.rows)
        self.rows.extend(rows)

    @property
    def page(self) -> int:
        return self.rows[0][0].page

    @property
    def box(self) -> Box:
        """Around what stands in the first column."""
        return around([line.box for row in self.rows[: self.first_rows or None] for line in row])

    @property
    def style(self) -> Style:
        weights: Counter[Style] = Counter()
        for row in self.rows:
            for line in row:
                weights[line.style] += len(line.text)
        return weights.most_common(1)[0][0]

    @property
    def texts(self) -> list[str]:
        """One string a row."""
        return [" ".join(line.text for line in row) for row in self.rows]

    @property
    def face(self) -> str:
        """The font of all of it; empty where there are several."""
        faces = {run.style.face for row in self.rows for line in row for run in line.runs if run.text.strip()}
        return faces.pop() if len(faces) == 1 else ""

    @property
    def is_bold(self) -> bool:
        return all(run.style.is_bold for row in self.rows for line in row for run in line.runs if run.text.strip())

    @property
    def is_italic(self) -> bool:
        return all(run.style.is_italic for row in self.rows for line in row for run in line.runs if run.text.strip())


def body_style(groups: Sequence[Sequence[Line]]) -> Style:
    """How most characters are set."""
    sizes: Counter[Style] = Counter()
    for group in groups:
        for line in group:
            for run in line.runs:
                sizes[run.style] += len(run.text)
    return sizes.most_common(1)[0][0] if sizes else Style(10.0)


def paragraphs_of(group: Sequence[Line], body: Style) -> list[Paragraph]:
    """The paragraphs of one column."""
    rows = _rows(group)
    if not rows:
        return []
    left = _usual_left(rows)
    right = max(row[-1].x1 for row in rows)
    pitch = _pitch(rows)
    found: list[Paragraph] = [Paragraph([rows[0]])]
    for above, row in pairwise(rows):
        if _ends_before(found[-1], above, row, left, right, pitch):
            found.append(Paragraph([row]))
        else:
            found[-1].rows.append(row)
    for paragraph in found:
        paragraph.kind = _kind(paragraph, body)
    return _tables_joined(found, body.size)


def _rows(group: Sequence[Line]) -> list[list[Line]]:
    rows: list[list[Line]] = []
    for line in group:
        if rows and abs(rows[-1][0].runs[0].baseline - line.runs[0].baseline) < 0.4 * max(line.style.size, 1.0):
            rows[-1].append(line)
        else:
            rows.append([line])
    return rows


def _usual_left(rows: Sequence[Sequence[Line]]) -> float:
    starts = Counter(round(row[0].x0) for row in rows)
    most = starts.most_common(1)[0][1]
    return float(min(x for x, count in starts.items() if count >= 0.5 * most))


def _pitch(rows: Sequence[Sequence[Line]]) -> float:
    steps = [b[0].runs[0].baseline - a[0].runs[0].baseline for a, b in pairwise(rows)]
    close = [step for step in steps if 0 < step < 40]
    return median(close) if close else 12.0


def _ends_before(
    paragraph: Paragraph, above: list[Line], row: list[Line], left: float, right: float, pitch: float
) -> bool:
    upper, lower = above[0].style, row[0].style
    step = row[0].runs[0].baseline - above[0].runs[0].baseline
    first_of_entry = _ENTRY.match(_text(row)) is not None and row[0].x0 <= paragraph.rows[0][0].x0 + 2
    in_caption = _CAPTION.match(paragraph.rows[0][0].text) is not None
    is_short = above[-1].x1 < right - 0.12 * (right - left)
    if _is_title_going_on(above, row, step):
        return False
    return (
        step > max(1.35 * pitch, 1.55 * lower.size)
        or step <= 0
        or abs(upper.size - lower.size) > 0.6
        or (not in_caption and _all_bold(above) != _all_bold(row) and (_all_bold(above) or len(paragraph.rows) > 1))
        or _is_tabular(above) != _is_tabular(row)
        or _is_indented(above, row, left, lower.size)
        or (is_short and _ended(above) and row[0].text[:1].isupper())
        or (is_short and len(paragraph.rows) <= 2 and _is_other_face(above, row) and row[0].text[:1].isupper())
        or (is_short and _SUBSECTION.match(_text(above)) is not None)
        or (is_known(_text(above)) and len(paragraph.rows) == 1)
        or (is_known(_text(row)) and (is_short or _ended(above)))
        or (first_of_entry and _ENTRY.match(_text(paragraph.rows[0])) is not None)
        or _BULLET.match(row[0].text) is not None
    )


def _text(row: Sequence[Line]) -> str:
    return " ".join(line.text for line in row)


def _is_title_going_on(above: Sequence[Line], row: Sequence[Line], step: float) -> bool:
    """Rows of a title or heading of several: all set in one way that is not the way of running text."""
    style = row[0].style
    return (
        _all_bold(above)
        and _all_bold(row)
        and style == above[0].style
        and 0 < step < 1.35 * style.size
        and not is_known(_text(row))
        and not is_known(_text(above))
        and _SUBSECTION.match(_text(row)) is None
    )


def _is_other_face(above: Sequence[Line], row: Sequence[Line]) -> bool:
    """Whether two rows are each set in one font, and not in the same: a heading whose font's name tells nothing."""
    first = {run.style.face for line in above for run in line.runs if run.text.strip()}
    second = {run.style.face for line in row for run in line.runs if run.text.strip()}
    return len(first) == 1 and first.isdisjoint(second)


def _all_bold(row: Sequence[Line]) -> bool:
    return all(run.style.is_bold for line in row for run in line.runs if run.text.strip())


def _is_indented(above: Sequence[Line], row: Sequence[Line], left: float, size: float) -> bool:
    indent = row[0].x0 - left
    return 0.6 * size < indent < 4 * size and row[0].x0 - above[0].x0 > 0.6 * size and _ended(above)


def _ended(row: Sequence[Line]) -> bool:
    return row[-1].text.endswith((*_ENDS, "]"))


def _is_tabular(row: Sequence[Line]) -> bool:
    """Several pieces with wide gaps; the words of a stretched line stand alone and are no cells."""
    if len(row) < 2:
        return False
    is_stretched = len(row) > 2 and all(" " not in line.text and line.text.isalpha() for line in row)
    widest = max(b.x0 - a.x1 for a, b in pairwise(row))
    return not is_stretched and (len(row) > 2 or widest > 2.2 * row[0].style.size)


def _kind(paragraph: Paragraph, style: Style) -> Kind:
    text, body = paragraph.texts[0], style.size
    if _CAPTION.match(text) and (paragraph.style.size < body - 0.3 or paragraph.rows[0][0].runs[0].style.is_bold):
        return Kind.CAPTION
    if _CAPTION.match(text) and re.match(r"\w+\.?\s*\w+[.:|]", text):
        return Kind.CAPTION
    if all(_is_tabular(row) for row in paragraph.rows):
        return Kind.TABLE
    if _BULLET.match(text):
        return Kind.ITEM
    if _is_heading(paragraph, style):
        return Kind.HEADING
    return Kind.NOTE if paragraph.style.size < _SMALL * body else Kind.TEXT


def _is_heading(paragraph: Paragraph, body: Style) -> bool:
    text = " ".join(paragraph.texts)
    if len(paragraph.rows) == 1 and (is_known(text) or (_SUBSECTION.match(text) and len(text) < 100)):
        return True
    is_title = paragraph.style.size > 1.3 * body.size and len(paragraph.rows) <= 8 and len(text) <= 500
    if (
        (not is_title and (len(paragraph.rows) > 4 or len(text) > 250))
        or not any(map(str.isalpha, text))
        or len(text) < 3
    ):
        return False
    if text.endswith((",", ";", "-")) or (text.endswith(".") and not text[:1].isdigit() and len(text) > 60):
        return False
    size = paragraph.style.size
    if size >= 1.04 * body.size or (paragraph.is_bold and size >= 0.8 * body.size):
        return True
    is_other = paragraph.is_italic if len(paragraph.rows) == 1 else paragraph.face not in {"", body.face}
    is_short = len(paragraph.rows) <= 3 and len(text) < 150 and text[:1].isupper() and not text.endswith((".", ":"))
    return is_short and (is_other or paragraph.face not in {"", body.face}) and size >= 0.9 * body.size


def _tables_joined(paragraphs: list[Paragraph], body: float) -> list[Paragraph]:
    """Rows of a table that wrap, or have a single cell, stand between those with several."""
    joined: list[Paragraph] = []
    between: list[Paragraph] = []
    for paragraph in paragraphs:
        table = joined[-1] if joined and joined[-1].kind is Kind.TABLE else None
        if table is not None and paragraph.kind is Kind.TABLE:
            for part in (*between, paragraph):
                table.rows.extend(part.rows)
            between = []
        elif table is not None and len(between) < _MAX_BETWEEN and _may_be_cells(paragraph, table):
            between.append(paragraph)
        else:
            joined += [*between, paragraph]
            between = []
    joined += between
    for paragraph in joined:
        if paragraph.kind is Kind.TABLE and len(paragraph.rows) == 1:
            paragraph.kind = Kind.NOTE if paragraph.style.size < _SMALL * body else Kind.TEXT
    return joined


def _may_be_cells(paragraph: Paragraph, table: Paragraph) -> bool:
    return (
        paragraph.kind in {Kind.TEXT, Kind.NOTE, Kind.HEADING, Kind.ITEM}
        and len(paragraph.rows) <= 3
        and abs(paragraph.style.size - table.style.size) < 0.7
        and max(len(text) for text in paragraph.texts) < _CELL_CHARACTERS
    )
