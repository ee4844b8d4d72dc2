"""Haystack components that split texts into passages bounded in tokens: at sentence ends, or at changes of subject."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from haystack import Document, component, default_to_dict
from medkg.contracts.ids import stable_id
from medkg.haystack.cohesion import Cohesion, subject_changes
from medkg.haystack.embedding import LocalEmbedder
from medkg.haystack.models import open_local_embedder
from medkg.haystack.packing import Passage, Unit, pack
from medkg.haystack.sentences import sentence_spans
from medkg.haystack.tokens import WORD_PIECES, ModelTokenizer, Tokenizer

_TITLE_SHARE = 2  # a title takes at most half of a passage's bound


class Splitter(Protocol):
    """What the chunk stage asks of its component."""

    def run(self, documents: list[Document]) -> dict[str, list[Document]]: ...


class _Bound:
    """Checks and keeps what all splitters are told."""

    def __init__(self, max_tokens: int, overlap_sentences: int, tokenizer_file: str, with_title: bool) -> None:
        if max_tokens < 8 or overlap_sentences < 0:
            raise ValueError(f"max_tokens must be at least 8, overlap_sentences 0: {max_tokens}, {overlap_sentences}")
        self.max_tokens = max_tokens
        self.overlap_sentences = overlap_sentences
        self.with_title = with_title
        self.tokenizer: Tokenizer = ModelTokenizer(Path(tokenizer_file)) if tokenizer_file else WORD_PIECES

    def split(self, document: Document, units: list[Unit]) -> list[Document]:
        content = document.content or ""
        room = self.max_tokens
        if self.with_title and (title := str(document.meta.get("title", ""))):
            room -= min(self.tokenizer.count(title), self.max_tokens // _TITLE_SHARE)
        return _documents(document, pack(content, units, room, self.overlap_sentences, self.tokenizer))


@component
class PassageSplitter:
    """Splits each document (one section of a text) into passages.

    ``max_tokens`` bounds a passage, counted by the tokenizer in ``tokenizer_file`` (a model's ``tokenizer.json``), else
    by :data:`medkg.haystack.tokens.WORD_PIECES`; ``with_title`` leaves room for ``meta["title"]``, which some embedders
    read before each passage. ``overlap_sentences`` of a passage's last sentences are repeated at the beginning of the
    next one.
    """

    def __init__(
        self, max_tokens: int = 256, overlap_sentences: int = 1, tokenizer_file: str = "", with_title: bool = False
    ) -> None:
        self._bound = _Bound(max_tokens, overlap_sentences, tokenizer_file, with_title)
        self._given = {
            "max_tokens": max_tokens,
            "overlap_sentences": overlap_sentences,
            "tokenizer_file": tokenizer_file,
            "with_title": with_title,
        }

    def to_dict(self) -> dict[str, Any]:
        """For a serialised Haystack pipeline."""
        return dict(default_to_dict(self, **self._given))

    @component.output_types(documents=list[Document])
    def run(self, documents: list[Document]) -> dict[str, list[Document]]:
        """One document for each passage.

        ``meta["units"]`` (a list of :class:`~medkg.haystack.packing.Unit`) says where a document may be cut; without it
        that is at sentence ends. A passage's meta holds ``parent_id``, ``split_id`` (0-based), ``token_count`` and
        ``ranges``, the character ranges of the parent's content that it is made of, beside the parent's other meta.
        """
        return {"documents": [passage for given in documents for passage in self._bound.split(given, _units(given))]}


@component
class SemanticSplitter:
    """Splits each document where neighbouring sentences part, as their embeddings tell; input and output as
    :class:`PassageSplitter`.

    ``embedder`` says which model, as :func:`medkg.haystack.models.open_local_embedder` reads it. ``window`` sentences
    on either side of a place are compared; a place is a boundary where they are less alike than around it by more than
    ``sensitivity`` standard deviations of the document. A passage has at least ``min_tokens``, unless the document is
    shorter, and at most ``max_tokens``.
    """

    def __init__(
        self,
        embedder: dict[str, Any] | None = None,
        max_tokens: int = 256,
        min_tokens: int = 64,
        window: int = 2,
        sensitivity: float = 0.5,
        tokenizer_file: str = "",
        with_title: bool = False,
    ) -> None:
        self._cohesion = Cohesion(min_tokens, window, sensitivity)
        self._bound = _Bound(max_tokens, 0, tokenizer_file, with_title)
        self._described = dict(embedder or {"kind": "hashing"})
        self._given = {
            "embedder": self._described,
            "max_tokens": max_tokens,
            "min_tokens": min_tokens,
            "window": window,
            "sensitivity": sensitivity,
            "tokenizer_file": tokenizer_file,
            "with_title": with_title,
        }
        self._embedder: LocalEmbedder | None = None

    def to_dict(self) -> dict[str, Any]:
        """For a serialised Haystack pipeline."""
        return dict(default_to_dict(self, **self._given))

    def warm_up(self) -> None:
        """Loads the model, once."""
        if self._embedder is None:
            self._embedder = open_local_embedder(self._described)

    @component.output_types(documents=list[Document])
    def run(self, documents: list[Document]) -> dict[str, list[Document]]:
        """One document for each passage."""
        self.warm_up()
        embedder, count = self._embedder, self._bound.tokenizer.count
        assert embedder is not None  # noqa: S101  warm_up opened it
        return {
            "documents": [
                passage
                for given in documents
                for passage in self._bound.split(given, _coherent(given, embedder, count, self._cohesion))
            ]
        }


def _coherent(
    document: Document, embedder: LocalEmbedder, count: Callable[[str], int], cohesion: Cohesion
) -> list[Unit]:
    return subject_changes(document.content or "", _units(document), embedder, count, cohesion)


def _units(document: Document) -> list[Unit]:
    units: list[Unit] | None = document.meta.get("units")
    if units is None:
        return [Unit(start, end) for start, end in sentence_spans(document.content or "")]
    return units


def _documents(parent: Document, passages: list[Passage]) -> list[Document]:
    meta = {key: value for key, value in parent.meta.items() if key != "units"}
    return [
        Document(
            id=stable_id("passage", parent.id, number),
            content=passage.text,
            meta={
                **meta,
                "parent_id": parent.id,
                "split_id": number,
                "token_count": passage.token_count,
                "ranges": passage.ranges,
            },
        )
        for number, passage in enumerate(passages)
    ]
