"""The running content of an article: sections and blocks, in the order of the source.

Every element is either known to stand for itself (a block) or is part of the text around it; what is not known is text
where it holds only text, and is walked where it holds blocks. So nothing is lost for want of a name.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from medkg.contracts.document import BlockKind, SectionKind
from medkg.parse.builder import MAX_HEADING_CHARACTERS, DocumentBuilder, flat
from medkg.parse.jats.inline import Line, chosen, text_of
from medkg.parse.jats.references import add_references
from medkg.parse.jats.tables import read_table
from medkg.parse.jats.tree import Child, check_depth, child, children, name_of

FOOTNOTE = "footnote"
"""The role of a note's paragraphs; captions have ``figure``, ``table`` and ``supplement``."""


class Flow:
    """Writes one part of an article (``kind``) into a builder, under headings that begin with ``path``."""

    def __init__(self, builder: DocumentBuilder, kind: SectionKind, path: tuple[str, ...] = ()) -> None:
        self._builder = builder
        self._kind = kind
        self._path = path
        self._block_kind = BlockKind.PARAGRAPH
        self._role = ""
        self._label = ""  # waits for the text that it stands before
        self._label_at = ""  # the place of both
        self._depth = 0

    def read(self, part: Child) -> None:
        """Everything within an element such as ``body``. Its own title, if it has one, becomes a heading."""
        self._builder.open_section(self._path, self._kind)
        self.titled(part)

    def content(self, parent: Child, *passed_over: Child | None) -> None:
        """Mixed content: known elements become what they stand for, the runs of text between them blocks."""
        self._depth += 1
        check_depth(self._depth)
        skipped = [part.element for part in passed_over if part is not None]
        line = Line()
        line.put(parent.element.text)
        for part in children(parent, with_entities=True):
            if part.element not in skipped:
                handler = self._handler(part)
                if handler is None:
                    line.element(part.element)
                else:
                    self._flush(line, parent.at)
                    line = Line()
                    handler(self, part)
            line.put(part.element.tail)
        self._flush(line, parent.at)
        self._depth -= 1

    def titled(self, part: Child) -> None:
        """A section or anything else that may have a heading: what is in it stands under that."""
        title = child(part, "title")
        heading = flat(text_of(title.element)) if title is not None else ""
        if not heading:
            self.content(part)
            return
        label = child(part, "label")
        if label is not None:
            heading = flat(f"{text_of(label.element)} {heading}")
        above, before = self._path, self._builder.section_count
        self._path = (*above, heading)
        self._builder.open_section(self._path, self._kind)
        if len(heading) > MAX_HEADING_CHARACTERS:
            self._builder.add(heading, part.at)
        self.content(part, title, label)
        if self._builder.section_count == before:
            self._builder.keep_section()
        self._path = above
        self._builder.open_section(self._path, self._kind)

    def items(self, part: Child) -> None:
        """A list."""
        with self._as(BlockKind.LIST_ITEM, self._role):
            self.titled(part)

    def labelled(self, part: Child) -> None:
        """An item or a note: its label stands before its first text."""
        self._flush_label()
        label = child(part, "label")
        if label is not None:
            self._label, self._label_at = flat(text_of(label.element)), part.at
        self.content(part, label)
        self._flush_label()

    def note(self, part: Child) -> None:
        """A footnote."""
        with self._as(BlockKind.PARAGRAPH, FOOTNOTE):
            self.labelled(part)

    def notes(self, part: Child) -> None:
        """A group of footnotes, or what stands below a table."""
        with self._as(BlockKind.PARAGRAPH, FOOTNOTE):
            self.titled(part)

    def definition(self, part: Child) -> None:
        """A term and what it means."""
        self._builder.add(text_of(part.element), part.at, BlockKind.LIST_ITEM)

    def equation(self, part: Child) -> None:
        """A formula that stands for itself. One that is only an image has no text and is left out."""
        self._builder.add(text_of(part.element), part.at, BlockKind.EQUATION)

    def captioned(self, part: Child, role: str) -> None:
        """A figure, table or file: label and caption as one block, then what it holds."""
        label, caption = child(part, "label"), child(part, "caption")
        texts = [flat(text_of(found.element)) for found in (label, caption) if found is not None]
        at = caption.at if caption is not None and label is None else part.at
        self._builder.add(" ".join(texts), at, BlockKind.CAPTION, role=role)
        self.content(part, label, caption)

    def table(self, part: Child) -> None:
        """The cells of a table."""
        grid = read_table(part.element)
        self._builder.add_table(grid.rows, grid.lines, part.at, header_rows=grid.header_rows)

    def alternatives(self, part: Child) -> None:
        """The table among several forms of the same."""
        for inner in children(part):
            if inner.name == "table":
                self.table(inner)
                return

    def references(self, part: Child) -> None:
        """The bibliography, wherever it stands."""
        title = child(part, "title")
        heading = flat(text_of(title.element)) if title is not None else ""
        add_references(self._builder, part, heading or "References")
        self._builder.open_section(self._path, self._kind)

    def _handler(self, part: Child) -> "Handler | None":
        """What makes blocks of an element; None where it is part of the text around it."""
        if part.name == "alternatives":
            form = chosen(part.element)
            return Flow.alternatives if form is not None and name_of(form) == "table" else None
        handler = _HANDLERS.get(part.name)
        if handler is None and len(part.element) and next(part.element.iter(*_BLOCK_TAGS), None) is not None:
            return Flow.titled
        return handler

    def _flush(self, line: Line, at: str) -> None:
        text = flat(line.text())
        if text and self._label:
            text, at, self._label = f"{self._label} {text}", self._label_at, ""
        self._builder.add(text, at, self._block_kind, role=self._role)

    def _flush_label(self) -> None:
        """A label with nothing behind it."""
        self._builder.add(self._label, self._label_at, self._block_kind, role=self._role)
        self._label = ""

    @contextmanager
    def _as(self, kind: BlockKind, role: str) -> Iterator[None]:
        before = (self._block_kind, self._role)
        self._block_kind, self._role = kind, role
        yield
        self._block_kind, self._role = before


Handler = Callable[[Flow, Child], None]


def _captioned(role: str) -> Handler:
    return lambda flow, part: flow.captioned(part, role)


_TITLED = (
    *("sec", "app", "app-group", "boxed-text", "ack", "glossary", "notes", "bio", "statement", "speech", "disp-quote"),
    *("verse-group", "fig-group", "table-wrap-group", "disp-formula-group", "def-list", "array"),
)
_BLOCKS: dict[str, Handler] = {
    **dict.fromkeys(_TITLED, Flow.titled),
    **dict.fromkeys(("p", "attrib", "code", "preformat", "verse-line"), Flow.content),
    "list": Flow.items,
    "list-item": Flow.labelled,
    "def-item": Flow.definition,
    "disp-formula": Flow.equation,
    "fig": _captioned("figure"),
    "table-wrap": _captioned("table"),
    "supplementary-material": _captioned("supplement"),
    "media": _captioned("supplement"),
    "table": Flow.table,
    "table-wrap-foot": Flow.notes,
    "fn-group": Flow.notes,
    "fn": Flow.note,
    "ref-list": Flow.references,
}
_BLOCK_TAGS = tuple(f"{{*}}{name}" for name in _BLOCKS)
_HANDLERS: dict[str, Handler] = {
    **_BLOCKS,
    # These occur within running text too, where they do not make a block of what holds them.
    "title": Flow.content,
    "subtitle": Flow.content,
    "graphic": _captioned("figure"),
}
