"""Plain text and Markdown to a document: paragraphs, and in Markdown headings and lists.

A block's place is the range of characters it was made from, ``char=START,END`` (RFC 5147, section 2.2.1), counted in
the text of the payload.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from medkg.contracts.context import StageContext
from medkg.contracts.document import BlockKind, Document, RawPayload, SectionKind
from medkg.contracts.errors import PayloadMalformedError, PayloadTooLargeError
from medkg.contracts.media import MARKDOWN, essence
from medkg.parse.builder import DocumentBuilder, flat

MAX_TITLE_CHARACTERS = 200
MAX_LINES = 1_000_000
_MAX_HEADING_LINE = 1_000  # characters; a longer line is a paragraph, whatever it begins with
_LINE = re.compile(r"[^\n\r]*(?:\r\n|\n|\r|\Z)")
_SENTENCE_ENDS = (".", "!", "?", ";", ":", ",", "。", "！", "？", "।", "؟", "۔")  # noqa: RUF001 - meant as they are
_HEADING = re.compile(r" {0,3}(#{1,6})[ \t]+(.*?)[ \t]*#*[ \t]*")
_UNDERLINE = re.compile(r" {0,3}(=+|-+)[ \t]*")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_ITEM = re.compile(r"[ \t]*(?:[-*+]|\d{1,9}[.)])[ \t]+(?=\S)")


@dataclass(frozen=True, slots=True)
class _Line:
    start: int
    text: str  # without its line ending

    @property
    def end(self) -> int:
        return self.start + len(self.text)

    @property
    def is_blank(self) -> bool:
        return not self.text.strip()


def parse_text(ctx: StageContext, payload: RawPayload) -> Document:
    """The document of a text.

    The first line is the title where it stands alone, is short and does not end like a sentence; in Markdown the first
    heading of level one is.

    Raises:
        PayloadMalformedError: there is nothing but white space in it. PayloadTooLargeError: too many lines or blocks.
    """
    if not payload.text.strip():
        raise PayloadMalformedError(f"parsing {payload.source_id}: the text is empty")
    if payload.text.count("\n") + payload.text.count("\r") > MAX_LINES:
        raise PayloadTooLargeError(f"parsing {payload.source_id}: more than {MAX_LINES} lines; split the text")
    builder = DocumentBuilder(payload.source_id)
    lines = list(_lines(payload.text))
    is_markdown = essence(payload.media_type) == MARKDOWN
    title = _Markdown(builder, lines).read() if is_markdown else _plain(builder, lines)
    return Document(
        doc_id=ctx.doc_id,
        source=payload.source,
        source_id=payload.source_id,
        kind="text",
        title=title,
        sections=builder.sections(),
    )


def _lines(text: str) -> Iterator[_Line]:
    for found in _LINE.finditer(text):
        if found.group():
            yield _Line(found.start(), found.group().rstrip("\r\n"))


def _plain(builder: DocumentBuilder, lines: list[_Line]) -> str:
    title, first = _title_of(lines)
    builder.open_section((), SectionKind.BODY)
    paragraph: list[_Line] = []
    for line in lines[first:]:
        if line.is_blank:
            _flush(builder, paragraph)
        else:
            paragraph.append(line)
    _flush(builder, paragraph)
    return title


def _title_of(lines: list[_Line]) -> tuple[str, int]:
    """The title and the number of the first line behind it."""
    first = next(n for n, line in enumerate(lines) if not line.is_blank)
    text = flat(lines[first].text)
    stands_alone = first + 2 < len(lines) and lines[first + 1].is_blank
    if (
        stands_alone
        and len(text) <= MAX_TITLE_CHARACTERS
        and not text.endswith(_SENTENCE_ENDS)
        and any(not line.is_blank for line in lines[first + 2 :])
    ):
        return text, first + 1
    return "", first


def _flush(builder: DocumentBuilder, lines: list[_Line], kind: BlockKind = BlockKind.PARAGRAPH, skip: int = 0) -> None:
    if lines:
        text = " ".join((lines[0].text[skip:], *(line.text for line in lines[1:])))
        builder.add(text, f"char={lines[0].start + skip},{lines[-1].end}", kind)
        lines.clear()


class _Markdown:
    """One pass over the lines: headings open sections, list items and paragraphs become blocks."""

    def __init__(self, builder: DocumentBuilder, lines: list[_Line]) -> None:
        self._builder = builder
        self._lines = lines
        self._title = ""
        self._path: list[tuple[int, str]] = []
        self._sections_before = 0
        self._held: list[_Line] = []
        self._kind, self._skip = BlockKind.PARAGRAPH, 0

    def read(self) -> str:
        """The title, when everything has been added."""
        self._builder.open_section((), SectionKind.BODY)
        fence = ""
        for line in self._lines:
            found = _FENCE.match(line.text)
            if fence:
                self._held.append(line)
                if found is not None and found.group(1).startswith(fence):
                    fence = ""
                    self._flush()
            elif found is not None:
                self._flush()
                fence = found.group(1)
                self._held.append(line)
            else:
                self._read_line(line)
        self._flush()
        self._keep_bare_heading(0)
        return self._title

    def _read_line(self, line: _Line) -> None:
        if line.is_blank:
            self._flush()
        elif len(line.text) <= _MAX_HEADING_LINE and (heading := _HEADING.fullmatch(line.text)):
            self._flush()
            self._open(len(heading.group(1)), heading.group(2))
        elif len(self._held) == 1 and self._kind is BlockKind.PARAGRAPH and _UNDERLINE.fullmatch(line.text):
            text = self._held.pop().text
            self._open(1 if "=" in line.text else 2, text)
        elif item := _ITEM.match(line.text):
            self._flush()
            self._kind, self._skip = BlockKind.LIST_ITEM, item.end()
            self._held.append(line)
        else:
            self._held.append(line)

    def _open(self, level: int, text: str) -> None:
        text = flat(text)
        if not text:
            return
        if level == 1 and not self._title and not self._path:
            self._title = text
            return
        self._keep_bare_heading(level)
        self._path = [(above, name) for above, name in self._path if above < level]
        self._path.append((level, text))
        self._builder.open_section([name for _, name in self._path], SectionKind.BODY)
        self._sections_before = self._builder.section_count

    def _keep_bare_heading(self, level: int) -> None:
        """A heading that nothing stands below is still read, unless the next one (of ``level``) is below it."""
        if self._path and self._path[-1][0] >= level and self._builder.section_count == self._sections_before:
            self._builder.keep_section()

    def _flush(self) -> None:
        _flush(self._builder, self._held, self._kind, self._skip)
        self._kind, self._skip = BlockKind.PARAGRAPH, 0
