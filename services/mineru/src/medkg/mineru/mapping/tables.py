"""The HTML of a table as cells: rows repeat a spanning cell wherever it reaches, lines do not."""

from dataclasses import dataclass, field

from lxml import etree, html

from medkg.mineru.mapping.pieces import clean

MAX_HTML = 5_000_000  # characters
MAX_COLUMNS = 500
MAX_CELLS = 200_000
_SPAN = 1_000


@dataclass(slots=True)
class Cells:
    rows: list[list[str]] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    header_rows: int = 0


def read_cells(source: str) -> Cells | None:
    """The cells of the first table in this HTML; None where there is none, or it is larger than a table can be."""
    if not source or len(source) > MAX_HTML:
        return None
    parser = html.HTMLParser(no_network=True, remove_comments=True, remove_pis=True, huge_tree=False)
    try:
        root = html.document_fromstring(source.replace("\x00", ""), parser=parser)
    except (etree.ParserError, etree.XMLSyntaxError, ValueError):
        return None
    table = next(root.iter("table"), None)
    return None if table is None else _grid(table)


def _grid(table: html.HtmlElement) -> Cells | None:
    cells = Cells()
    spans: dict[int, tuple[int, str]] = {}
    count = 0
    is_head = True
    for row in table.iter("tr"):
        line, texts = _row(row, spans)
        count += len(line)
        if count > MAX_CELLS:
            return None
        is_head = is_head and bool(len(row)) and all(cell.tag == "th" for cell in row)
        cells.header_rows += is_head
        cells.rows.append(line)
        cells.lines.append(" | ".join(text for text in texts if text))
    width = max(map(len, cells.rows), default=0)
    if width * len(cells.rows) > MAX_CELLS:
        return None
    for line in cells.rows:
        line.extend([""] * (width - len(line)))
    if cells.header_rows == 0 and len(cells.rows) > 1:
        cells.header_rows = _head_of(table)
    return cells if any(cells.lines) else None


def _head_of(table: html.HtmlElement) -> int:
    """MinerU marks no head: it is the first row, and the rows that its cells reach down into."""
    first = next(table.iter("tr"), None)
    if first is None:
        return 0
    deep = max((_number(cell.get("rowspan")) for cell in first), default=1)
    return min(deep, max(sum(1 for _ in table.iter("tr")) - 1, 0), 4)


def _row(row: html.HtmlElement, spans: dict[int, tuple[int, str]]) -> tuple[list[str], list[str]]:
    line: list[str] = []
    texts: list[str] = []

    def fill() -> None:
        while len(line) in spans:
            left, text = spans.pop(len(line))
            if left > 1:
                spans[len(line)] = (left - 1, text)
            line.append(text)

    for cell in row:
        if cell.tag not in {"td", "th"}:
            continue
        fill()
        text = " ".join(clean(cell.text_content()).split())
        texts.append(text)
        down = _number(cell.get("rowspan"))
        for _ in range(_number(cell.get("colspan"))):
            if len(line) >= MAX_COLUMNS:
                break
            if down > 1:
                spans[len(line)] = (down - 1, text)
            line.append(text)
    fill()
    return line, texts


def _number(value: str | None) -> int:
    text = (value or "1").strip()
    return min(max(int(text), 1), _SPAN) if text.isascii() and text.isdecimal() and len(text) < 9 else 1
