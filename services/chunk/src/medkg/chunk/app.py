"""The chunk service: what it offers, and how it is started."""

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from medkg.contracts.errors import ConfigurationError
from medkg.contracts.implementation import Host, Options, StageImplementation
from medkg.contracts.stages import StageType
from medkg.runtime.process import serve
from medkg.runtime.settings import from_environment


class ChunkOptions(Options):
    """What every chunker can be told."""

    max_tokens: int = Field(256, ge=16, le=8192, description="most tokens in a passage")
    tokenizer: Literal["word-pieces", "model"] = Field(
        "word-pieces",
        description="who counts: a stand-in without a vocabulary, or the embedder's own (MEDKG_CHUNK_TOKENIZER_FILE)",
    )
    tokenizer_sha256: str = Field(
        "", pattern=r"^(?:[0-9a-f]{64})?$", description="pins the tokenizer's file; another one is refused"
    )
    with_title: bool = Field(
        False, description="the bound holds for the title and the passage together, as the embedder reads them"
    )
    include_back: bool = Field(True, description="also acknowledgements, funding and competing interests")
    max_chunks: int = Field(20_000, ge=1, le=1_000_000, description="a document with more passages is refused")


class SectionOptions(ChunkOptions):
    """Settings of ``chunk.sections``."""

    overlap_sentences: int = Field(1, ge=0, le=10, description="sentences that the next passage repeats")


class SemanticOptions(ChunkOptions):
    """Settings of ``chunk.semantic``."""

    min_tokens: int = Field(64, ge=0, le=8192, description="no boundary that leaves fewer tokens on either side")
    window: int = Field(2, ge=1, le=16, description="sentences before and after a place that are compared")
    sensitivity: float = Field(0.5, ge=-3, le=5, description="standard deviations by which a boundary must stand out")
    embedder: Literal["hashing", "onnx"] = Field("hashing", description="what compares sentences")
    pooling: Literal["mean", "cls"] = Field("mean", description="of the ONNX model")
    model_revision: str = Field("", max_length=100, description="pins the ONNX model; another one is refused")


class SentenceOptions(ChunkOptions):
    """Settings of ``chunk.sentences``."""

    sentences: int = Field(1, ge=1, le=100, description="in a passage")


class TableOptions(SectionOptions):
    """Settings of ``chunk.tables``."""

    rows: int = Field(1, ge=1, le=1000, description="of a table in a passage, below its header")


@asynccontextmanager
async def _open_sections(options: SectionOptions, host: Host) -> AsyncIterator[object]:
    from medkg.chunk.stage import Chunker  # Haystack costs 40 MB: only where the stage runs
    from medkg.haystack.splitter import PassageSplitter

    splitter = PassageSplitter(overlap_sentences=options.overlap_sentences, **_bound(options))
    yield Chunker(splitter, include_back=options.include_back, max_chunks=options.max_chunks)


@asynccontextmanager
async def _open_sentences(options: SentenceOptions, host: Host) -> AsyncIterator[object]:
    from medkg.chunk.layout import every_sentences
    from medkg.chunk.stage import Chunker
    from medkg.haystack.splitter import PassageSplitter

    yield Chunker(
        PassageSplitter(overlap_sentences=0, **_bound(options)),
        include_back=options.include_back,
        max_chunks=options.max_chunks,
        arrange=every_sentences(options.sentences),
    )


@asynccontextmanager
async def _open_tables(options: TableOptions, host: Host) -> AsyncIterator[object]:
    from medkg.chunk.layout import every_rows
    from medkg.chunk.stage import Chunker
    from medkg.haystack.splitter import PassageSplitter

    yield Chunker(
        PassageSplitter(overlap_sentences=options.overlap_sentences, **_bound(options)),
        include_back=options.include_back,
        max_chunks=options.max_chunks,
        arrange=every_rows(options.rows),
    )


@asynccontextmanager
async def _open_semantic(options: SemanticOptions, host: Host) -> AsyncIterator[object]:
    from medkg.chunk.stage import Chunker
    from medkg.haystack.splitter import SemanticSplitter

    splitter = SemanticSplitter(
        embedder=_sentence_embedder(options),
        min_tokens=options.min_tokens,
        window=options.window,
        sensitivity=options.sensitivity,
        **_bound(options),
    )
    splitter.warm_up()
    yield Chunker(splitter, include_back=options.include_back, max_chunks=options.max_chunks)


def _bound(options: ChunkOptions) -> dict[str, Any]:
    return {
        "max_tokens": options.max_tokens,
        "with_title": options.with_title,
        "tokenizer_file": str(_tokenizer_file(options)) if options.tokenizer == "model" else "",
    }


def _tokenizer_file(options: ChunkOptions) -> Path:
    from medkg.chunk.settings import ChunkSettings

    file = from_environment(ChunkSettings).tokenizer_file
    if file is None or not file.is_file():
        raise ConfigurationError(
            f"opening a chunker with `tokenizer: model`: {file or 'no file'} is no tokenizer; set "
            "MEDKG_CHUNK_TOKENIZER_FILE to the tokenizer.json of the embedder"
        )
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    if options.tokenizer_sha256 not in ("", digest):
        raise ConfigurationError(
            f"opening a chunker: {file} has SHA-256 {digest}, pinned is {options.tokenizer_sha256}; put the pinned "
            "tokenizer back, or pin this one"
        )
    return file


def _sentence_embedder(options: SemanticOptions) -> dict[str, Any]:
    if options.embedder == "hashing":
        return {"kind": "hashing"}
    from medkg.chunk.settings import ChunkSettings

    settings = from_environment(ChunkSettings)
    if settings.onnx_folder is None:
        raise ConfigurationError(
            "opening chunk.semantic with `embedder: onnx`: no model folder; set MEDKG_CHUNK_ONNX_FOLDER to a folder "
            "with model.onnx and tokenizer.json, or use `embedder: hashing`"
        )
    return {
        "kind": "onnx",
        "folder": str(settings.onnx_folder),
        "threads": settings.onnx_threads,
        "pooling": options.pooling,
        "revision": options.model_revision,
    }


SECTIONS = StageImplementation(
    stage_type=StageType.CHUNK,
    name="sections",
    version="3",
    options=SectionOptions,
    open=_open_sections,
    is_default=True,
    in_python=True,
)
SEMANTIC = StageImplementation(
    stage_type=StageType.CHUNK, name="semantic", version="2", options=SemanticOptions, open=_open_semantic
)
SENTENCES = StageImplementation(
    stage_type=StageType.CHUNK,
    name="sentences",
    version="2",
    options=SentenceOptions,
    open=_open_sentences,
    in_python=True,
)
TABLES = StageImplementation(
    stage_type=StageType.CHUNK,
    name="tables",
    version="2",
    options=TableOptions,
    open=_open_tables,
    in_python=True,
)


def main() -> None:
    """Entry point of ``medkg-chunk`` and ``python -m medkg.chunk``."""
    serve(StageType.CHUNK)
