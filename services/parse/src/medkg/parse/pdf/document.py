"""From pages to a document: furniture dropped, sections under their headings, every block with its page and box."""

import re
from collections.abc import Iterable, Sequence

from medkg.contracts.document import BlockKind, Document, SectionKind
from medkg.contracts.errors import NeedsOcrError, PayloadMalformedError, PayloadUnsupportedError
from medkg.parse.builder import DocumentBuilder
from medkg.parse.pdf.furniture import furniture_of
from medkg.parse.pdf.headings import Headings
from medkg.parse.pdf.layout import reading_order
from medkg.parse.pdf.names import section_kind
from medkg.parse.pdf.page import Line, Page, Style, rounded
from medkg.parse.pdf.paragraphs import Kind, Paragraph, body_style, paragraphs_of
from medkg.parse.pdf.words import Vocabulary, mended

FOOTNOTE = "footnote"
_SCANNED_SHARE = 0.5  # of a page that a picture covers, beside hardly any text
_FEW_CHARACTERS = 20
_PROSE_WORDS = 4  # in a row that a paragraph goes on from: what is shorter is a cell or a label
_UNMAPPED_SHARE = 0.3
_NOTES = ("Notes",)
_FRONT = ("Front matter",)
_TERMINAL = re.compile("[.!?:;][])'\"\u201d\u2019\\d,\\s\u2013-]*$")
_TABLE = re.compile(r"(?:\w+ ){0,2}table", re.IGNORECASE)
_ENTRY = re.compile(r"(?:\[(\d{1,4})\]|(\d{1,4})[.)]?)\s+[^\W\d_a-z]")
_ABSTRACT = re.compile(r"abstract\s*[:.\u2014\u2013-]", re.IGNORECASE)


def document_of(pages: Iterable[Page], record: str) -> Document:
    """The document of a file: nobody's yet (``doc_id`` is empty), with provenance in ``record``.

    Raises:
        NeedsOcrError: pages that are pictures, or whose characters stand for nothing.
        PayloadUnsupportedError: none of its text can be seen, or it runs in another direction.
        PayloadMalformedError: there is nothing on its pages. PayloadTooLargeError: over a bound.
    """
    seen: list[tuple[Page, list[list[Line]]]] = []
    for page in pages:
        _refuse_picture(page)
        seen.append((page, reading_order(page)))
    _refuse_unreadable([page for page, _ in seen])
    groups = _without_furniture(seen)
    body = body_style(groups)
    paragraphs = [paragraph for group in groups for paragraph in paragraphs_of(group, body)]
    writer = _Writer(record, body, paragraphs)
    writer.write()
    if not any(section.blocks for section in writer.builder.sections()):  # only titles: they are it
        writer = _Writer(record, body, paragraphs, has_title=False)
        writer.write()
    return Document(
        doc_id="",
        source="",
        source_id="",
        kind="article",
        title=writer.title,
        sections=writer.builder.sections(),
        metadata={"pages": len(seen), "parser": "pdfium"},
    )


def _refuse_picture(page: Page) -> None:
    if page.characters + page.hidden - page.unmapped < _FEW_CHARACTERS and page.image_share > _SCANNED_SHARE:
        raise NeedsOcrError(
            f"reading page {page.number} of a PDF: it is a picture without text; have it read by a parser with OCR "
            "(MinerU)",
            page=page.number,
        )


def _refuse_unreadable(pages: Sequence[Page]) -> None:
    characters = sum(page.characters for page in pages)
    unmapped = sum(page.unmapped for page in pages)
    has_marks = any(page.image_share > 0.02 or page.drawings > 50 for page in pages)
    if characters > _FEW_CHARACTERS and unmapped > _UNMAPPED_SHARE * characters:
        raise NeedsOcrError(
            f"reading a PDF: {unmapped} of {characters} characters stand for nothing that could be read; "
            "have it read by a parser with OCR (MinerU)"
        )
    if characters - unmapped == 0:
        if any(page.hidden for page in pages):
            raise PayloadUnsupportedError(
                "reading a PDF: its text stands beside its pages, is cut away, or does not run from left to right"
            )
        if has_marks:
            raise NeedsOcrError("reading a PDF: pictures or drawings, and no text; have it read with OCR (MinerU)")
        raise PayloadMalformedError("reading a PDF: there is nothing on its pages")


def _without_furniture(seen: Sequence[tuple[Page, list[list[Line]]]]) -> list[list[Line]]:
    dropped = furniture_of([(page, [line for group in groups for line in group]) for page, groups in seen])
    kept = [[line for line in group if id(line) not in dropped] for _, groups in seen for group in groups]
    kept = [group for group in kept if group]
    return kept or [group for _, groups in seen for group in groups]  # nothing but margins: then they are the text


class _Writer:
    """Writes paragraphs into a builder. What is set apart from the text (notes, front matter) comes behind it."""

    def __init__(self, record: str, body: Style, paragraphs: list[Paragraph], *, has_title: bool = True) -> None:
        self.builder = DocumentBuilder(record)
        self.title = ""
        self._paragraphs = paragraphs
        self._vocabulary = Vocabulary(text for paragraph in paragraphs for text in paragraph.texts)
        self._headings = Headings(paragraphs, body, has_title=has_title)
        self._has_title = has_title
        self._front: list[Paragraph] = []
        self._notes: list[Paragraph] = []
        self._kind = SectionKind.BODY
        self._section_size: float | None = body.size  # of the first text under the last heading
        self._entry = 0  # the number of the last entry of a bibliography
        self._open: Paragraph | None = None  # running text that may go on in the next column
        self._held: list[Paragraph] = []  # captions and tables that stand in its way

    def write(self) -> None:
        title, rest = self._headings.title_and_rest()
        self.title = self._text(title) if title is not None else ""
        self.builder.open_section((), SectionKind.BODY)
        first_heading = self._headings.first_of_text(rest)
        self._front = rest[:first_heading]
        self._abstract()
        for paragraph in rest[first_heading:]:
            self._put(paragraph)
        self._close()
        self._set_apart(_FRONT, self._front)
        self._set_apart(_NOTES, self._notes)

    def _abstract(self) -> None:
        """An abstract that has no heading of its own, but begins with the word."""
        found = next((p for p in self._front if _ABSTRACT.match(self._text(p))), None)
        if found is not None:
            self._front.remove(found)
            self.builder.open_section(("Abstract",), SectionKind.ABSTRACT)
            self._add(found)
            self.builder.open_section((), SectionKind.BODY)

    def _put(self, paragraph: Paragraph) -> None:
        heading = self._headings.path_at(paragraph, self._text(paragraph)) if self._has_title else None
        if heading is not None:
            self._close()
            self._section_size, self._entry = None, 0
            self._kind = section_kind(heading)
            self.builder.open_section(heading, self._kind)
            self.builder.keep_section()
        elif self._kind is SectionKind.REFERENCES and paragraph.kind in {Kind.TEXT, Kind.NOTE, Kind.ITEM}:
            self._reference(paragraph)
        elif paragraph.kind in {Kind.CAPTION, Kind.TABLE}:
            self._held.append(paragraph)
            if self._open is None:
                self._close()
        elif paragraph.kind is Kind.NOTE and not self._is_text_here(paragraph):
            self._notes.append(paragraph)
        elif self._open is not None and self._goes_on(self._open, paragraph):
            self._open.go_on(paragraph.rows)
        else:
            self._close()
            self._section_size = self._section_size or paragraph.style.size
            self._open = paragraph

    def _is_text_here(self, paragraph: Paragraph) -> bool:
        """An abstract, or what stands behind the text, is often set smaller: right under its heading it is no note."""
        if self._section_size is None:
            self._section_size = paragraph.style.size
        return abs(self._section_size - paragraph.style.size) < 0.3

    def _reference(self, paragraph: Paragraph) -> None:
        """Entries of a bibliography: one begins with the number after the last one, where they are numbered."""
        if self._entry == 0 and not self._begins_entry(paragraph.rows[0], 1):
            if self._open is not None and self._goes_on(self._open, paragraph):
                self._open.go_on(paragraph.rows)
            else:
                self._close()
                self._open = paragraph
            return
        for row in paragraph.rows:
            if self._begins_entry(row, self._entry + 1):
                self._close()
                self._entry += 1
                self._open = Paragraph([row])
            elif self._open is None:
                self._open = Paragraph([row])
            else:
                self._open.go_on([row])

    def _begins_entry(self, row: Sequence[Line], number: int) -> bool:
        found = _ENTRY.match(" ".join(line.text for line in row))
        return found is not None and int(found[1] or found[2]) == number

    def _goes_on(self, before: Paragraph, paragraph: Paragraph) -> bool:
        text, following = before.texts[-1], paragraph.texts[0]
        if paragraph.kind is Kind.ITEM or abs(before.style.size - paragraph.style.size) > 0.3:
            return False
        if len(text.split()) < _PROSE_WORDS:
            return False
        return text.endswith(("-", "\u00ad")) or (not _TERMINAL.search(text) and not following[:1].isupper())

    def _close(self) -> None:
        if self._open is not None:
            self._add(self._open)
        for paragraph in self._held:
            self._add(paragraph)
        self._open, self._held = None, []

    def _add(self, paragraph: Paragraph, role: str = "") -> None:
        at, kind = f"page={paragraph.page}", _BLOCK_KINDS.get(paragraph.kind, BlockKind.PARAGRAPH)
        page, box = paragraph.page, rounded(paragraph.box)
        if paragraph.kind is Kind.TABLE:
            lines = [" | ".join(line.text for line in row) for row in paragraph.rows]
            self.builder.add_table((), lines, at, header_rows=0, page=page, box=box)
            return
        if self._kind is SectionKind.REFERENCES and kind is BlockKind.PARAGRAPH and not role:
            kind = BlockKind.REFERENCE
        if kind is BlockKind.CAPTION:
            role = "table" if _TABLE.match(paragraph.texts[0]) else "figure"
        self.builder.add(self._text(paragraph), at, kind, role=role, page=page, box=box)

    def _set_apart(self, path: tuple[str, ...], paragraphs: list[Paragraph]) -> None:
        if paragraphs:
            self.builder.open_section(path, SectionKind.BACK)
            self._kind = SectionKind.BACK
            for paragraph in paragraphs:
                self._add(paragraph, FOOTNOTE if path == _NOTES else "")

    def _text(self, paragraph: Paragraph) -> str:
        return mended(paragraph.texts, self._vocabulary)


_BLOCK_KINDS = {Kind.CAPTION: BlockKind.CAPTION, Kind.ITEM: BlockKind.LIST_ITEM, Kind.TABLE: BlockKind.TABLE}
