"""A section as one readable text, with the way back from every character to the block it came from."""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from medkg.contracts.document import Block, BlockKind, Section, TextSpan
from medkg.haystack.packing import Range, Unit
from medkg.haystack.sentences import sentence_spans

_ACRONYMS = {"nct": "NCT", "mesh": "MeSH", "id": "ID", "ids": "IDs", "ipd": "IPD", "doi": "DOI", "pmid": "PMID"}


@dataclass(slots=True)
class SectionText:
    """``content`` holds the text of each block unchanged, one after the other, with labels before fields.

    ``units`` are the places where it may be cut. ``origins`` leads back: labels belong to no block.
    """

    content: str = ""
    units: list[Unit] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)  # of each block's text in the content, ascending
    blocks: list[Block] = field(default_factory=list)

    def origins(self, ranges: tuple[Range, ...]) -> list[tuple[TextSpan, Block]]:
        """The parts of blocks that these ranges of the content show, in order, without white space at their ends."""
        return [origin for start, end in ranges for origin in self._origins(start, end)]

    def _origins(self, start: int, end: int) -> Iterator[tuple[TextSpan, Block]]:
        for index in range(max(bisect_right(self.starts, start) - 1, 0), len(self.starts)):
            offset, block = self.starts[index], self.blocks[index]
            if offset >= end:
                return
            low, high = max(start - offset, 0), min(end - offset, len(block.text))
            part = block.text[low:high] if low < high else ""
            if stripped := part.strip():
                low += len(part) - len(part.lstrip())
                yield TextSpan(block.block_id, low, low + len(stripped)), block


def lay_out(section: Section) -> SectionText:
    """The section's blocks as lines. A block without visible text leaves nothing behind."""
    laid = SectionText()
    parts: list[str] = []
    length = 0
    for block in section.blocks:
        if not block.text or block.text.isspace():
            continue
        label = _label(block)
        laid.starts.append(length + len(label))
        laid.blocks.append(block)
        laid.units.extend(_units(block, label, length))
        parts.append(f"{label}{block.text}\n")
        length += len(parts[-1])
    laid.content = "".join(parts)
    return laid


def every_sentences(count: int) -> Callable[[Sequence[Unit]], list[Unit]]:
    """Marks every ``count``-th sentence of a section as the beginning of a passage; rows and fields count as one."""

    def arrange(units: Sequence[Unit]) -> list[Unit]:
        return [replace(unit, starts_passage=True) if n % count == 0 else unit for n, unit in enumerate(units)]

    return arrange


def every_rows(count: int) -> Callable[[Sequence[Unit]], list[Unit]]:
    """Marks every ``count``-th row below a table's header as the beginning of a passage, and what follows a table.

    A row's passage repeats the header. Tables without a header stay as they are: nothing says what their rows are.
    """

    def arrange(units: Sequence[Unit]) -> list[Unit]:
        tables = {unit.header[0] for unit in units if unit.header is not None}  # where their header rows begin
        arranged: list[Unit] = []
        header, rows = None, 0
        for unit in units:
            rows = rows + 1 if unit.header is not None and unit.header == header else 0
            follows_table = unit.header is None and header is not None
            starts = unit.start in tables or follows_table or (rows > 0 and rows % count == 0)
            arranged.append(replace(unit, starts_passage=True) if starts else unit)
            header = unit.header
        return arranged

    return arrange


def _label(block: Block) -> str:
    """``Lead sponsor: `` before the value of a field, so that a passage of a registry record reads on its own."""
    if block.kind is not BlockKind.FIELD or not block.role:
        return ""
    words = " ".join(_ACRONYMS.get(word, word) for word in block.role.replace("_", " ").split())
    return f"{words[:1].upper()}{words[1:]}: " if words else ""


def _units(block: Block, label: str, offset: int) -> list[Unit]:
    start = offset + len(label)
    if block.kind is BlockKind.TABLE:
        return _rows(block, start)
    sentences = sentence_spans(block.text)
    is_prose = block.kind is not BlockKind.FIELD or len(sentences) > 1
    units = [Unit(start + a, start + b, can_overlap=is_prose) for a, b in sentences]
    if label:
        units[0] = Unit(offset, units[0].end, can_overlap=is_prose)
    return units


def _rows(table: Block, start: int) -> list[Unit]:
    """The lines of a table; those below the header rows carry them, where the text has one line for each row."""
    lines: list[Range] = []
    offset = start
    for line in table.text.splitlines(keepends=True):
        if stripped := line.strip():
            begin = offset + len(line) - len(line.lstrip())
            lines.append((begin, begin + len(stripped)))
        offset += len(line)
    headers = table.header_rows if len(lines) == len(table.rows) else 0
    header = (lines[0][0], lines[headers - 1][1]) if 0 < headers < len(lines) else None
    return [
        Unit(a, b, can_overlap=False, header=header if number >= headers else None)
        for number, (a, b) in enumerate(lines)
    ]
