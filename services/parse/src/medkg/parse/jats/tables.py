"""Tables (the XHTML model that JATS uses) as a grid of cells and as lines of text."""

from dataclasses import dataclass, field

from medkg.contracts.errors import PayloadTooLargeError
from medkg.parse.builder import flat
from medkg.parse.jats.inline import text_of
from medkg.parse.jats.tree import Element, name_of

MAX_COLUMNS = 1_000
MAX_CELLS = 500_000  # of one table, with those that a spanning cell fills


@dataclass(slots=True)
class Grid:
    """``rows`` repeat a spanning cell wherever it reaches, so that each column has its headings; ``lines`` do not."""

    rows: list[list[str]] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    header_rows: int = 0


def read_table(table: Element) -> Grid:
    """The cells of a table; the rows of its head come first.

    Raises:
        PayloadTooLargeError: its spans make it larger than a table can be.
    """
    head, body = _rows_of(table)
    grid = Grid(header_rows=len(head))
    spans: dict[int, tuple[int, str]] = {}  # column -> rows still covered from above, and by what
    cells = 0
    for number, row in enumerate((*head, *body)):
        if number == len(head):
            spans = {}  # no cell reaches from the head into the body
        line, texts = _row(row, spans)
        cells += len(line)
        if cells > MAX_CELLS:
            raise PayloadTooLargeError(f"parsing an article: a table with more than {MAX_CELLS} cells")
        grid.rows.append(line)
        grid.lines.append(" | ".join(text for text in texts if text))
    width = max(map(len, grid.rows), default=0)
    if width * len(grid.rows) > MAX_CELLS:
        raise PayloadTooLargeError(f"parsing an article: a table with more than {MAX_CELLS} cells")
    for line in grid.rows:
        line.extend([""] * (width - len(line)))
    return grid


def _rows_of(table: Element) -> tuple[list[Element], list[Element]]:
    """The rows of the head and all others. Without a head, the leading rows that only have headings are one."""
    head: list[Element] = []
    body: list[Element] = []
    for part in table:
        name = name_of(part)
        if name == "tr":
            body.append(part)
        elif name in {"thead", "tbody", "tfoot"}:
            (head if name == "thead" else body).extend(row for row in part if name_of(row) == "tr")
    while not head and len(body) > 1 and _is_heading(body[0]):
        head, body = [body[0]], body[1:]
    return head, body


def _is_heading(row: Element) -> bool:
    names = {name_of(cell) for cell in row} - {""}
    return names == {"th"}


def _row(row: Element, spans: dict[int, tuple[int, str]]) -> tuple[list[str], list[str]]:
    line: list[str] = []
    texts: list[str] = []

    def fill() -> None:
        while len(line) in spans:
            left, text = spans.pop(len(line))
            if left > 1:
                spans[len(line)] = (left - 1, text)
            line.append(text)

    for cell in row:
        if name_of(cell) not in {"td", "th"}:
            continue
        fill()
        text = flat(text_of(cell))
        texts.append(text)
        down = _span(cell, "rowspan")
        for _ in range(_span(cell, "colspan")):
            if len(line) >= MAX_COLUMNS:
                break
            if down > 1:
                spans[len(line)] = (down - 1, text)
            line.append(text)
    fill()
    return line, texts


def _span(cell: Element, name: str) -> int:
    value = cell.get(name, "1").strip()
    return min(max(int(value), 1), MAX_COLUMNS) if value.isascii() and value.isdecimal() and len(value) < 9 else 1
