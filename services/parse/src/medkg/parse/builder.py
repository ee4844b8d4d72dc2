"""Putting a document together: sections and blocks in reading order, with their ids, within bounds."""

import re
from collections.abc import Mapping, Sequence

from medkg.contracts.document import Block, BlockKind, Provenance, Section, SectionKind
from medkg.contracts.errors import PayloadTooLargeError

MAX_BLOCKS = 200_000  # blocks and sections together
MAX_CHARACTERS = 50_000_000  # of headings and blocks together, tables counted twice (as cells and as text)
MAX_HEADING_CHARACTERS = 300  # a heading is repeated in the path of everything below it

Box = tuple[float, float, float, float]
_Heading = tuple[tuple[str, ...], SectionKind]

_SPACE = re.compile(r"\s+")


def flat(text: str) -> str:
    """Text on one line: every run of white space is one space, NUL (which PostgreSQL cannot hold) is U+FFFD."""
    return _SPACE.sub(" ", text).strip().replace("\x00", "\N{REPLACEMENT CHARACTER}")


class DocumentBuilder:
    """Collects blocks under the section that was opened last. Blocks without text are left out.

    Ids count up in reading order (``s3``, ``s3.7``): the same record gives the same ids.
    """

    def __init__(self, record: str) -> None:
        self._record = record
        self._open: _Heading = ((), SectionKind.BODY)
        self._sections: list[tuple[_Heading, list[Block]]] = []
        self._count_of_all = 0
        self._characters = 0

    def open_section(self, path: Sequence[str], kind: SectionKind) -> None:
        """What is added from now on stands under ``path``; a section that nothing is added to does not come to be.

        Headings are cut to ``MAX_HEADING_CHARACTERS``.
        """
        self._open = (tuple(heading[:MAX_HEADING_CHARACTERS] for heading in path), kind)

    @property
    def section_count(self) -> int:
        """How many sections there are; grows with the first block of each."""
        return len(self._sections)

    def keep_section(self) -> None:
        """Let the open section come to be without a block: a heading with nothing below it is still read.

        Raises:
            PayloadTooLargeError: as ``add``.
        """
        if not self._sections or self._sections[-1][0] != self._open:
            self._count(sum(map(len, self._open[0])))
            self._sections.append((self._open, []))

    def add(
        self,
        text: str,
        at: str,
        kind: BlockKind = BlockKind.PARAGRAPH,
        *,
        role: str = "",
        attributes: Mapping[str, str] | None = None,
        page: int | None = None,
        box: Box | None = None,
    ) -> None:
        """One block of text; ``at`` is its place in the source record, ``page`` and ``box`` its place in a PDF.

        Raises:
            PayloadTooLargeError: the document has outgrown its bounds.
        """
        text = flat(text)
        if text:
            where = Provenance(self._record, at, page, box)
            self._append(text, where, kind, role, dict(attributes or {}), (), 0)

    def add_table(
        self,
        rows: Sequence[Sequence[str]],
        lines: Sequence[str],
        at: str,
        *,
        header_rows: int,
        role: str = "",
        page: int | None = None,
        box: Box | None = None,
    ) -> None:
        """A table: its cells as a grid, and the same as text, a line a row (where a spanning cell stands only once)."""
        grid = tuple(tuple(map(flat, row)) for row in rows)
        text = "\n".join(map(flat, lines))
        if text.strip():
            self._count(sum(len(cell) for row in grid for cell in row))
            where = Provenance(self._record, at, page, box)
            self._append(text, where, BlockKind.TABLE, role, {}, grid, header_rows)

    def sections(self) -> tuple[Section, ...]:
        """Everything so far."""
        return tuple(
            Section(f"s{number}", path, tuple(blocks), kind)
            for number, ((path, kind), blocks) in enumerate(self._sections)
        )

    def _append(
        self,
        text: str,
        where: Provenance,
        kind: BlockKind,
        role: str,
        attributes: dict[str, str],
        rows: tuple[tuple[str, ...], ...],
        header_rows: int,
    ) -> None:
        self._count(len(text))
        self.keep_section()
        blocks = self._sections[-1][1]
        number = len(self._sections) - 1
        blocks.append(
            Block(
                block_id=f"s{number}.{len(blocks)}",
                text=text,
                provenance=where,
                kind=kind,
                role=role,
                attributes=attributes,
                rows=rows,
                header_rows=header_rows,
            )
        )

    def _count(self, characters: int) -> None:
        self._count_of_all += 1
        self._characters += characters
        if self._count_of_all > MAX_BLOCKS or self._characters > MAX_CHARACTERS:
            raise PayloadTooLargeError(
                f"parsing {self._record}: more than {MAX_BLOCKS} blocks or {MAX_CHARACTERS} characters; "
                "split the record"
            )
