"""Chunking: a document's sections become passages of bounded size that lead back to their blocks."""

from collections.abc import Callable, Sequence

from haystack import Document as Text

from medkg.chunk.layout import lay_out
from medkg.contracts.context import Metadata, Scalar, StageContext
from medkg.contracts.document import Block, Chunk, Document, Provenance, Section, SectionKind
from medkg.contracts.errors import PayloadTooLargeError
from medkg.contracts.ids import stable_id
from medkg.haystack.packing import Unit
from medkg.haystack.splitter import PassageSplitter, Splitter

_MAX_FIELDS = 16
_MAX_FIELD_CHARACTERS = 200  # metadata goes with every passage: longer values stay with the document
_FACETS = ("year", "retracted", "phase", "condition", "conditions")  # what searches filter by is always kept
_MAX_FACET_CHARACTERS = 2_000  # several conditions


Arrange = Callable[[Sequence[Unit]], list[Unit]]  # says where passages must begin


class Chunker:
    """Pure: the same document always gives the same chunks. Safe to call from several threads.

    ``splitter`` makes passages of one section's text; no passage crosses a section. ``arrange`` marks units that must
    start one.
    """

    def __init__(
        self, splitter: Splitter, *, include_back: bool = True, max_chunks: int = 20_000, arrange: Arrange = list
    ) -> None:
        left_out = {SectionKind.TERMS, SectionKind.REFERENCES}
        self._left_out = left_out if include_back else left_out | {SectionKind.BACK}
        self._splitter = splitter
        self._max_chunks = max_chunks
        self._arrange = arrange

    def execute(self, ctx: StageContext, document: Document) -> list[Chunk]:
        """The passages of every section that is running text, in reading order.

        Raises:
            PayloadTooLargeError: the document would give more than ``max_chunks`` passages.
        """
        metadata = _metadata(ctx.metadata, document)
        chunks: list[Chunk] = []
        for section in document.sections:
            if section.kind not in self._left_out:
                self._chunk_section(document, section, metadata, chunks)
        return chunks

    def _chunk_section(self, document: Document, section: Section, metadata: Metadata, chunks: list[Chunk]) -> None:
        laid = lay_out(section)
        meta = {"units": self._arrange(laid.units), "title": document.title}
        whole = Text(id=section.section_id, content=laid.content, meta=meta)
        passages = self._splitter.run(documents=[whole])["documents"]
        if len(chunks) + len(passages) > self._max_chunks:
            raise PayloadTooLargeError(
                f"chunking document {document.doc_id} ({document.source}:{document.source_id}): more than "
                f"{self._max_chunks} passages; raise max_chunks or max_tokens if a document may be this long",
                doc_id=document.doc_id,
                limit=self._max_chunks,
            )
        for passage in passages:
            text = passage.content or ""
            origins = laid.origins(passage.meta["ranges"])
            chunks.append(
                Chunk(
                    chunk_id=stable_id("chunk", document.doc_id, len(chunks), text),
                    doc_id=document.doc_id,
                    ordinal=len(chunks),
                    text=text,
                    section_path=section.path,
                    spans=tuple(span for span, _ in origins),
                    token_count=passage.meta["token_count"],
                    title=document.title,
                    provenance=_provenance([block for _, block in origins]),
                    metadata=metadata,
                )
            )


class SectionChunker(Chunker):
    """Sections as they are read, cut where they are over the bound."""

    def __init__(
        self, max_tokens: int = 256, overlap_sentences: int = 1, include_back: bool = True, max_chunks: int = 20_000
    ) -> None:
        splitter = PassageSplitter(max_tokens=max_tokens, overlap_sentences=overlap_sentences)
        super().__init__(splitter, include_back=include_back, max_chunks=max_chunks)


def _provenance(blocks: list[Block]) -> Provenance | None:
    """Of the first block that knows its page, else of the first block."""
    with_page = (block.provenance for block in blocks if block.provenance.page is not None)
    return next(with_page, blocks[0].provenance if blocks else None)


def _metadata(known: Metadata, document: Document) -> Metadata:
    """What a search result shows and filters by: where the document is from, and its short facts.

    Facets that the document does not know itself, as a PDF knows no year, are those that its source told (``known``).
    """
    told = {name: known[name] for name in _FACETS if name in known} | document.metadata
    facets = {name: _cut(told[name]) for name in _FACETS if name in told}
    short = {
        key: value
        for key, value in sorted(document.metadata.items())
        if key not in facets and (not isinstance(value, str) or len(value) <= _MAX_FIELD_CHARACTERS)
    }
    kept: Metadata = facets | dict(list(short.items())[: _MAX_FIELDS - len(facets)])
    return dict(sorted(kept.items())) | {
        "source": document.source,
        "source_id": document.source_id,
        "kind": document.kind,
    }


def _cut(value: Scalar) -> Scalar:
    """As many whole values of several (``A|B``) as are kept."""
    if not isinstance(value, str) or len(value) <= _MAX_FACET_CHARACTERS:
        return value
    return value[: _MAX_FACET_CHARACTERS + 1].rpartition("|")[0]
