"""The other chunkers keep the promises of the first: whole sentences, rows under their header, changes of subject."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medkg.chunk.app import SECTIONS, SEMANTIC, SENTENCES, TABLES
from medkg.chunk.layout import every_rows, every_sentences
from medkg.chunk.stage import Chunker
from medkg.contracts.context import StageContext
from medkg.contracts.document import Block, BlockKind, Chunk, Document, Provenance, Section, SectionKind
from medkg.contracts.errors import ConfigurationError
from medkg.contracts.implementation import Host, StageImplementation
from medkg.contracts.stages import encode_artefact
from medkg.haystack.splitter import PassageSplitter, SemanticSplitter

CONTEXT = StageContext(tenant_id="acme", doc_id="d1", correlation_id="job")
TEXT = st.text(alphabet=st.sampled_from(list("abcDEF12 .,;:()-\n\u00e9\u75c5?!")), max_size=160)
CHUNKERS: dict[str, Callable[[int], Chunker]] = {
    "sections": lambda bound: Chunker(PassageSplitter(bound, 1)),
    "sections with the title": lambda bound: Chunker(PassageSplitter(bound, 1, with_title=True)),
    "semantic": lambda bound: Chunker(SemanticSplitter(max_tokens=bound, min_tokens=4, sensitivity=0)),
    "sentences": lambda bound: Chunker(PassageSplitter(bound, 0), arrange=every_sentences(2)),
    "tables": lambda bound: Chunker(PassageSplitter(bound, 1), arrange=every_rows(2)),
}


class NoBlobs:
    async def get(self, key: str) -> bytes | None:
        raise AssertionError("a chunker reads no blobs")

    async def put(self, key: str, data: bytes) -> None:
        raise AssertionError("a chunker writes no blobs")


def document(*blocks: Block, title: str = "A title") -> Document:
    section = Section("s", ("Results",), blocks, SectionKind.BODY)
    return Document("d1", "files", "S1", "article", title, (section,))


def prose(text: str, number: int = 0) -> Block:
    return Block(f"p{number}", text, Provenance("r", f"/{number}"))


def table(header: str, *rows: str, number: int = 9) -> Block:
    lines = (header, *rows)
    return Block(
        f"t{number}",
        "\n".join(lines),
        Provenance("r", f"/{number}"),
        kind=BlockKind.TABLE,
        rows=tuple(tuple(line.split(" | ")) for line in lines),
        header_rows=1,
    )


@st.composite
def documents(draw: st.DrawFn) -> Document:
    blocks = []
    for number in range(draw(st.integers(0, 5))):
        text = draw(TEXT)
        if draw(st.booleans()):
            rows = tuple((line,) for line in text.split("\n"))
            kind = BlockKind.TABLE
            blocks.append(Block(f"b{number}", text, Provenance("r"), kind=kind, rows=rows, header_rows=1))
        else:
            blocks.append(prose(text, number))
    return document(*blocks, title=draw(TEXT))


@pytest.mark.parametrize("name", CHUNKERS)
@settings(max_examples=40)
@given(source=documents(), bound=st.integers(16, 48))
def test_every_word_of_the_body_is_in_some_chunk_and_every_run_gives_the_same_bytes(
    name: str, source: Document, bound: int
) -> None:
    chunks = CHUNKERS[name](bound).execute(CONTEXT, source)
    shown: dict[str, set[int]] = {}
    for ordinal, chunk in enumerate(chunks):
        assert (chunk.ordinal, chunk.doc_id) == (ordinal, "d1")
        assert chunk.token_count <= bound
        for span in chunk.spans:
            shown.setdefault(span.block_id, set()).update(range(span.start, span.end))
    for block in source.blocks():
        visible = {place for place, character in enumerate(block.text) if not character.isspace()}
        assert visible <= shown.get(block.block_id, set()), block.text
    assert encode_artefact(CHUNKERS[name](bound).execute(CONTEXT, source)) == encode_artefact(chunks)


def texts(chunks: list[Chunk]) -> list[str]:
    return [" ".join(chunk.text.split()) for chunk in chunks]


def test_a_row_of_a_table_is_read_under_its_header() -> None:
    source = document(
        prose("Adverse events follow. They were mild.", 1),
        table("Event | Aspirin", "Bleeding | 3", "Nausea | 7", "Rash | 1"),
        prose("No deaths.", 2),
    )
    assert texts(CHUNKERS["tables"](64).execute(CONTEXT, source)) == [
        "Adverse events follow. They were mild.",
        "Event | Aspirin Bleeding | 3 Nausea | 7",
        "Event | Aspirin Rash | 1",
        "No deaths.",
    ]


def test_a_sentence_is_a_passage_whatever_its_full_stops() -> None:
    text = "Growth of S. aureus fell (p < 0.05, cf. Fig. 2). Patients, e.g. children, improved. It lasted 2.5 h."
    chunks = Chunker(PassageSplitter(64, 0), arrange=every_sentences(1)).execute(CONTEXT, document(prose(text)))
    assert texts(chunks) == [
        "Growth of S. aureus fell (p < 0.05, cf. Fig. 2).",
        "Patients, e.g. children, improved.",
        "It lasted 2.5 h.",
    ]


def test_passages_part_where_the_subject_changes() -> None:
    heart = "The heart failure of patients was measured. Heart failure patients had heart failure symptoms measured. "
    kidney = "Renal dialysis clearance of urea was low. Dialysis of renal urea clearance was low in renal dialysis."
    source = document(prose(heart * 2 + kidney * 2))
    chunks = Chunker(SemanticSplitter(max_tokens=256, min_tokens=8)).execute(CONTEXT, source)
    assert len(chunks) == 2
    assert "Renal" not in chunks[0].text
    assert "heart" not in chunks[1].text


def tokenizer_file(folder: Path) -> Path:
    """A word-level tokenizer: each word and each sign one token."""
    file = folder / "tokenizer.json"
    file.write_text(
        json.dumps(
            {
                "version": "1.0",
                "truncation": {"max_length": 4, "strategy": "LongestFirst", "stride": 0, "direction": "Right"},
                "padding": None,
                "added_tokens": [],
                "normalizer": None,
                "pre_tokenizer": {"type": "Whitespace"},
                "post_processor": None,
                "decoder": None,
                "model": {"type": "WordLevel", "vocab": {"[UNK]": 0}, "unk_token": "[UNK]"},
            }
        )
    )
    return file


async def open_and_run(
    implementation: StageImplementation, source: Document, folder: Path, **given: object
) -> list[Chunk]:
    options = implementation.options.model_validate(given)
    async with implementation.open(options, Host(folder, NoBlobs())) as stage:
        chunks: list[Chunk] = stage.execute(CONTEXT, source)
        return chunks


@pytest.mark.parametrize("implementation", [SECTIONS, SEMANTIC, SENTENCES, TABLES])
async def test_each_implementation_opens_as_it_comes(implementation: StageImplementation, tmp_path: Path) -> None:
    assert len(await open_and_run(implementation, document(prose("One sentence.")), tmp_path)) == 1


async def test_the_embedders_own_tokenizer_bounds_a_passage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tokenizers")
    file = tokenizer_file(tmp_path)
    monkeypatch.setenv("MEDKG_CHUNK_TOKENIZER_FILE", str(file))
    source = document(prose("Immunohistochemistry " * 40))
    own = await open_and_run(SECTIONS, source, tmp_path, tokenizer="model", max_tokens=16)
    assert [chunk.token_count for chunk in own] == [16, 16, 8]  # a word is one token of this vocabulary
    titled = await open_and_run(SECTIONS, source, tmp_path, tokenizer="model", max_tokens=16, with_title=True)
    assert titled[0].token_count == 14  # "A title" takes two
    pinned = hashlib.sha256(file.read_bytes()).hexdigest()
    await open_and_run(SECTIONS, source, tmp_path, tokenizer="model", tokenizer_sha256=pinned)
    with pytest.raises(ConfigurationError, match="pinned is 0000"):
        await open_and_run(SECTIONS, source, tmp_path, tokenizer="model", tokenizer_sha256="0" * 64)


async def test_a_tokenizer_that_is_not_there_is_a_clear_configuration_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MEDKG_CHUNK_TOKENIZER_FILE", raising=False)
    with pytest.raises(ConfigurationError, match="MEDKG_CHUNK_TOKENIZER_FILE"):
        await open_and_run(SECTIONS, document(), tmp_path, tokenizer="model")
    (tmp_path / "tokenizer.json").write_text("{")
    monkeypatch.setenv("MEDKG_CHUNK_TOKENIZER_FILE", str(tmp_path / "tokenizer.json"))
    with pytest.raises(ConfigurationError, match="opening the tokenizer"):
        await open_and_run(SECTIONS, document(), tmp_path, tokenizer="model")
    monkeypatch.delenv("MEDKG_CHUNK_ONNX_FOLDER", raising=False)
    with pytest.raises(ConfigurationError, match="MEDKG_CHUNK_ONNX_FOLDER"):
        await open_and_run(SEMANTIC, document(), tmp_path, embedder="onnx")
