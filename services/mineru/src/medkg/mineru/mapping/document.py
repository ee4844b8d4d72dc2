"""Pieces to a document: sections under their headings, references, notes and captions each as what they are."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from medkg.contracts.document import Block, BlockKind, Document, Provenance, Section, SectionKind
from medkg.contracts.errors import PayloadMalformedError, PayloadTooLargeError
from medkg.mineru.answers import Output
from medkg.mineru.mapping.content_list import read_content_list
from medkg.mineru.mapping.content_list_v2 import read_content_list_v2
from medkg.mineru.mapping.middle import page_sizes, read_middle
from medkg.mineru.mapping.pieces import MAX_CHARACTERS, MAX_PIECES, Box, Kind, Piece, Sizes
from medkg.mineru.mapping.tables import read_cells

MAPPING = "1"  # raise it when the same output of MinerU gives another document
_MAX_HEADING = 300
_NUMBERED = re.compile(r"((?:\d{1,2}|[A-Z])(?:\.\d{1,2}){0,4})\.?\s+\S")
_BACK = re.compile(
    r"(?:acknowledge?ments?|funding|disclosure.*|competing interests?|conflicts? of interest.*|declaration.*|"
    r"author contributions?|data availability.*|ethics statement|notes)",
    re.IGNORECASE,
)
_SPACE = re.compile(r"\s+")
_BLOCK_KINDS = {Kind.EQUATION: BlockKind.EQUATION, Kind.ITEM: BlockKind.LIST_ITEM}
_ROLES = {Kind.FIGURE: "figure", Kind.TABLE: "table", Kind.CODE: "code"}


def to_document(output: Output, sha256: str, sizes: Sizes | None = None) -> Document:
    """The document of a file: nobody's yet (``doc_id`` is empty), with provenance in the file.

    The richest form that is there is read. ``sizes`` of the pages are needed for boxes where there is no ``middle``.

    Raises:
        PayloadMalformedError: there is no text in it. PayloadTooLargeError: there is too much.
    """
    known = page_sizes(output.middle) or sizes or {}
    pieces: Iterable[Piece] = ()
    if output.content_list:
        pieces = read_content_list(output.content_list, known)
    elif output.content_list_v2:
        pieces = read_content_list_v2(output.content_list_v2, known)
    else:
        pieces = read_middle(output.middle)
    assembly = _Assembly(f"sha256:{sha256}")
    for count, piece in enumerate(pieces):
        if count >= MAX_PIECES:
            raise PayloadTooLargeError(f"mapping what MinerU made of {sha256}: more than {MAX_PIECES} pieces")
        assembly.put(piece)
    sections = assembly.sections()
    if not any(section.blocks for section in sections):
        raise PayloadMalformedError(f"mapping what MinerU made of {sha256}: there is no text in it")
    return Document(
        doc_id="",
        source="",
        source_id="",
        kind="article",
        title=assembly.title,
        sections=sections,
        metadata={"pages": max(known, default=assembly.last_page), "parser": "mineru"},
    )


@dataclass(slots=True)
class _Part:
    path: tuple[str, ...]
    kind: SectionKind
    blocks: list[Block] = field(default_factory=list)


class _Assembly:
    def __init__(self, record: str) -> None:
        self.title = ""
        self.last_page = 1
        self._record = record
        self._parts: list[_Part] = [_Part((), SectionKind.BODY)]
        self._notes = _Part(("Notes",), SectionKind.BACK)
        self._references = _Part(("References",), SectionKind.REFERENCES)
        self._path: list[tuple[int, str]] = []
        self._characters = 0

    def put(self, piece: Piece) -> None:
        """Add a piece where it belongs.

        Raises:
            PayloadTooLargeError: there are too many characters.
        """
        self.last_page = max(self.last_page, piece.page)
        if piece.kind is Kind.HEADING:
            self._heading(piece)
            return
        here = self._parts[-1]
        for caption in piece.captions:
            self._add(here, caption, piece, BlockKind.CAPTION, _ROLES.get(piece.kind, ""))
        if piece.kind is Kind.TABLE:
            self._table(here, piece)
        elif piece.kind is Kind.REFERENCE:
            self._reference(piece)
        elif piece.kind is Kind.NOTE:
            self._add(self._notes, piece.text, piece, role="footnote")
        else:
            self._text(piece)
        for note in piece.footnotes:
            self._add(here, note, piece, role="footnote")

    def _text(self, piece: Piece) -> None:
        here = self._parts[-1]
        if piece.kind is Kind.ABSTRACT and not here.path and not here.blocks:  # without a heading of its own
            self._open([(2, "Abstract")])
            here = self._parts[-1]
        kind = _BLOCK_KINDS.get(piece.kind, BlockKind.PARAGRAPH)
        if here.kind is SectionKind.REFERENCES and kind is BlockKind.PARAGRAPH:
            kind = BlockKind.REFERENCE
        for text in piece.items or (piece.text,):
            self._add(here, text, piece, kind, "code" if piece.kind is Kind.CODE else "")

    def sections(self) -> tuple[Section, ...]:
        """Everything so far; a heading with nothing below it is kept, what has neither is not."""
        parts = [
            part for part in (*self._parts, self._references, self._notes) if part.blocks or part in self._headed()
        ]
        return tuple(
            Section(
                f"s{number}",
                part.path,
                tuple(_named(block, f"s{number}.{index}") for index, block in enumerate(part.blocks)),
                part.kind,
            )
            for number, part in enumerate(parts)
        )

    def _headed(self) -> list[_Part]:
        return [part for part in self._parts if part.path]

    def _heading(self, piece: Piece) -> None:
        text = _flat(piece.text)
        if not text:
            return
        if piece.level == 1 and not self.title and not self._path:
            self.title = text
            return
        level = _level(text, piece.level)
        self._open([*((above, name) for above, name in self._path if above < level), (level, text[:_MAX_HEADING])])
        if len(text) > _MAX_HEADING:
            self._add(self._parts[-1], text, piece)
        self._count(len(text))

    def _open(self, path: list[tuple[int, str]]) -> None:
        self._path = path
        names = tuple(name for _, name in path)
        self._parts.append(_Part(names, _section_kind(names)))

    def _table(self, part: _Part, piece: Piece) -> None:
        cells = read_cells(piece.html)
        if cells is None:
            return  # only a picture of it; its caption says what it shows
        rows = tuple(tuple(_flat(cell) for cell in row) for row in cells.rows)
        text = "\n".join(_flat(line) for line in cells.lines)
        self._count(sum(len(cell) for row in rows for cell in row) + len(text))
        where = Provenance(self._record, piece.path, piece.page, piece.box)
        part.blocks.append(Block("", text, where, BlockKind.TABLE, "", {}, rows, cells.header_rows))

    def _reference(self, piece: Piece) -> None:
        here = self._parts[-1]
        part = here if here.kind is SectionKind.REFERENCES else self._references
        for text in piece.items or (piece.text,):
            self._add(part, text, piece, BlockKind.REFERENCE)

    def _add(self, part: _Part, text: str, piece: Piece, kind: BlockKind = BlockKind.PARAGRAPH, role: str = "") -> None:
        text = _flat(text)
        if text:
            self._count(len(text))
            where = Provenance(self._record, piece.path, piece.page, _rounded(piece.box))
            part.blocks.append(Block("", text, where, kind, role))

    def _count(self, characters: int) -> None:
        self._characters += characters
        if self._characters > MAX_CHARACTERS:
            raise PayloadTooLargeError(f"mapping what MinerU made of {self._record}: over {MAX_CHARACTERS} characters")


def _level(text: str, given: int) -> int:
    """How deep a heading is: MinerU calls nearly all of them 2, so their numbers decide where they have any."""
    numbered = _NUMBERED.match(text)
    return 2 + numbered[1].count(".") if numbered else max(given, 2)


def _section_kind(path: tuple[str, ...]) -> SectionKind:
    for heading in path:
        name = heading.strip(" .:").lower()
        if name == "abstract":
            return SectionKind.ABSTRACT
        if name in {"references", "bibliography"}:
            return SectionKind.REFERENCES
        if _BACK.fullmatch(name):
            return SectionKind.BACK
    return SectionKind.BODY


def _named(block: Block, block_id: str) -> Block:
    return Block(
        block_id, block.text, block.provenance, block.kind, block.role, block.attributes, block.rows, block.header_rows
    )


def _flat(text: str) -> str:
    """On one line; without what PostgreSQL or UTF-8 cannot hold."""
    text = _SPACE.sub(" ", text).strip().replace("\x00", "\N{REPLACEMENT CHARACTER}")
    return text.encode(errors="replace").decode() if not text.isascii() else text


def _rounded(box: Box | None) -> Box | None:
    return None if box is None else (round(box[0], 1), round(box[1], 1), round(box[2], 1), round(box[3], 1))
