"""A Haystack component that splits texts into passages bounded in tokens, at sentence ends."""

from typing import Any

from haystack import Document, component, default_to_dict
from medkg.contracts.ids import stable_id
from medkg.haystack.packing import Unit, pack
from medkg.haystack.sentences import sentence_spans


@component
class PassageSplitter:
    """Splits each document (one section of a text) into passages.

    ``max_tokens`` bounds a passage, counted by :func:`medkg.haystack.tokens.count_tokens`; ``overlap_sentences`` of its
    last sentences are repeated at the beginning of the next one.
    """

    def __init__(self, max_tokens: int = 256, overlap_sentences: int = 1) -> None:
        if max_tokens < 8 or overlap_sentences < 0:
            raise ValueError(f"max_tokens must be at least 8, overlap_sentences 0: {max_tokens}, {overlap_sentences}")
        self.max_tokens = max_tokens
        self.overlap_sentences = overlap_sentences

    def to_dict(self) -> dict[str, Any]:
        """For a serialised Haystack pipeline."""
        return dict(default_to_dict(self, max_tokens=self.max_tokens, overlap_sentences=self.overlap_sentences))

    @component.output_types(documents=list[Document])
    def run(self, documents: list[Document]) -> dict[str, list[Document]]:
        """One document for each passage.

        ``meta["units"]`` (a list of :class:`~medkg.haystack.packing.Unit`) says where a document may be cut; without it
        that is at sentence ends. A passage's meta holds ``parent_id``, ``split_id`` (0-based), ``token_count`` and
        ``ranges``, the character ranges of the parent's content that it is made of, beside the parent's other meta.
        """
        return {"documents": [passage for document in documents for passage in self._split(document)]}

    def _split(self, document: Document) -> list[Document]:
        content = document.content or ""
        units = document.meta.get("units")
        if units is None:
            units = [Unit(start, end) for start, end in sentence_spans(content)]
        meta = {key: value for key, value in document.meta.items() if key != "units"}
        return [
            Document(
                id=stable_id("passage", document.id, number),
                content=passage.text,
                meta={
                    **meta,
                    "parent_id": document.id,
                    "split_id": number,
                    "token_count": passage.token_count,
                    "ranges": passage.ranges,
                },
            )
            for number, passage in enumerate(pack(content, units, self.max_tokens, self.overlap_sentences))
        ]
