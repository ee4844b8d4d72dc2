"""Documents become passages."""

import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medkg.chunk.app import SECTIONS, SectionOptions
from medkg.chunk.stage import SectionChunker
from medkg.contracts.context import Metadata, StageContext
from medkg.contracts.document import Block, BlockKind, Chunk, Document, Provenance, Section, SectionKind
from medkg.contracts.errors import PayloadTooLargeError
from medkg.contracts.implementation import Host
from medkg.contracts.stages import encode_artefact
from medkg.haystack.tokens import count_tokens

CONTEXT = StageContext(tenant_id="acme", doc_id="d1", correlation_id="job")


class NoBlobs:
    async def get(self, key: str) -> bytes | None:
        raise AssertionError("a chunker reads no blobs")

    async def put(self, key: str, data: bytes) -> None:
        raise AssertionError("a chunker writes no blobs")


WORDS = st.text(alphabet=st.sampled_from(list("abcDEF12 .,;:()-\n\u00e9\u75c5?!")), max_size=120)


def block(number: int, text: str, kind: BlockKind = BlockKind.PARAGRAPH, **fields: object) -> Block:
    return Block(f"b{number}", text, Provenance("r", f"/{number}"), kind=kind, **fields)  # type: ignore[arg-type]  # fields by name


def document(*sections: Section) -> Document:
    return Document("d1", "files", "S1", "article", "A title", sections, metadata={"year": 2020})


def section(*blocks: Block, kind: SectionKind = SectionKind.BODY, path: tuple[str, ...] = ("Methods",)) -> Section:
    return Section(f"s-{path[-1]}", path, blocks, kind)


def texts_of(chunk: Chunk, source: Document) -> list[str]:
    blocks = {b.block_id: b for b in source.blocks()}
    return [blocks[span.block_id].text[span.start : span.end] for span in chunk.spans]


@st.composite
def documents(draw: st.DrawFn) -> Document:
    number = 0
    sections = []
    for index in range(draw(st.integers(0, 4))):
        blocks = []
        for _ in range(draw(st.integers(0, 5))):
            number += 1
            kind = draw(st.sampled_from([BlockKind.PARAGRAPH, BlockKind.LIST_ITEM, BlockKind.CAPTION, BlockKind.TABLE]))
            text = draw(WORDS)
            rows = tuple((line,) for line in text.split("\n")) if kind is BlockKind.TABLE else ()
            blocks.append(block(number, text, kind, rows=rows, header_rows=draw(st.integers(0, 2)) if rows else 0))
        sections.append(section(*blocks, path=(f"H{index}",), kind=draw(st.sampled_from(list(SectionKind)))))
    return document(*sections)


@given(documents(), st.integers(16, 64), st.integers(0, 2))
def test_every_word_is_in_a_passage_that_its_spans_reproduce(source: Document, max_tokens: int, overlap: int) -> None:
    chunks = SectionChunker(max_tokens, overlap).execute(CONTEXT, source)
    shown: dict[str, set[int]] = {}
    for ordinal, chunk in enumerate(chunks):
        assert chunk.ordinal == ordinal
        assert chunk.token_count == count_tokens(chunk.text) <= max_tokens
        assert "".join("".join(texts_of(chunk, source)).split()) == "".join(chunk.text.split())
        owner = next(s for s in source.sections if s.path == chunk.section_path)
        assert {span.block_id for span in chunk.spans} <= {b.block_id for b in owner.blocks}
        for span in chunk.spans:
            shown.setdefault(span.block_id, set()).update(range(span.start, span.end))
    for part in source.sections:
        for piece in part.blocks:
            seen = shown.get(piece.block_id, set())
            if part.kind in (SectionKind.TERMS, SectionKind.REFERENCES):
                assert not seen
            else:
                assert all(at in seen or character.isspace() for at, character in enumerate(piece.text))
    assert len({chunk.chunk_id for chunk in chunks}) == len(chunks)


@given(documents())
def test_the_same_document_always_gives_the_same_bytes(source: Document) -> None:
    first, second = (encode_artefact(SectionChunker(32).execute(CONTEXT, source)) for _ in range(2))
    assert first == second


def test_fields_become_labelled_lines_of_one_passage() -> None:
    source = document(
        section(
            block(1, "Asthma", BlockKind.FIELD, role="condition"),
            block(2, "Acme Inc.", BlockKind.FIELD, role="lead_sponsor"),
            block(3, "  ", BlockKind.FIELD, role="phase"),
            block(4, "No role", BlockKind.FIELD),
            block(5, "NCT01", BlockKind.FIELD, role="nct_number"),
            kind=SectionKind.REGISTRY,
        )
    )
    (chunk,) = SectionChunker().execute(CONTEXT, source)
    assert chunk.text == "Condition: Asthma\nLead sponsor: Acme Inc.\nNo role\nNCT number: NCT01"
    assert texts_of(chunk, source) == ["Asthma", "Acme Inc.", "No role", "NCT01"]


def test_rows_of_a_long_table_carry_their_header() -> None:
    rows = (("Arm", "Mean"), *((f"Arm {n}", f"{n}.5 mg") for n in range(40)))
    table = block(1, "\n".join(" | ".join(row) for row in rows), BlockKind.TABLE, rows=rows, header_rows=1)
    chunks = SectionChunker(max_tokens=48).execute(CONTEXT, document(section(table)))
    assert len(chunks) > 3
    assert all(chunk.text.startswith("Arm | Mean\nArm ") for chunk in chunks)


def test_no_passage_crosses_a_section_and_each_says_where_it_stands() -> None:
    source = document(
        section(block(1, "One."), path=("Results", "Safety")),
        section(block(2, "Two."), path=("Results", "Efficacy")),
        section(block(3, "Thanks."), kind=SectionKind.BACK, path=("Thanks",)),
    )
    chunks = SectionChunker().execute(CONTEXT, source)
    assert [(c.text, c.section_path) for c in chunks] == [
        ("One.", ("Results", "Safety")),
        ("Two.", ("Results", "Efficacy")),
        ("Thanks.", ("Thanks",)),
    ]
    assert chunks[0].provenance == Provenance("r", "/1")
    assert chunks[0].metadata == {"year": 2020, "source": "files", "source_id": "S1", "kind": "article"}
    assert chunks[0].title == "A title"
    assert len(SectionChunker(include_back=False).execute(CONTEXT, source)) == 2


def test_page_and_box_come_from_the_first_block_that_has_them() -> None:
    boxed = Provenance("r", "/2", page=3, box=(0, 0, 10, 10))
    source = document(section(block(1, "One."), Block("b2", "Two.", boxed)))
    assert SectionChunker().execute(CONTEXT, source)[0].provenance == boxed


def test_a_document_with_too_many_passages_is_refused_with_the_limit() -> None:
    source = document(section(block(1, "Some words stand here. " * 40)))
    with pytest.raises(PayloadTooLargeError, match="more than 2 passages"):
        SectionChunker(max_tokens=16, max_chunks=2).execute(CONTEXT, source)


def test_long_values_of_metadata_stay_with_the_document() -> None:
    source = Document("d", "files", "S", "text", "T", (section(block(1, "x y")),), metadata={"a": "x" * 500, "b": True})
    assert SectionChunker().execute(CONTEXT, source)[0].metadata == {
        "b": True,
        "source": "files",
        "source_id": "S",
        "kind": "text",
    }


def test_what_searches_filter_by_is_kept_whatever_else_a_document_says() -> None:
    conditions = "|".join(f"condition {n}" for n in range(400))
    metadata: Metadata = {f"a{n:02}": n for n in range(40)}
    metadata |= {"year": 2020, "conditions": conditions, "phase": "PHASE1"}
    source = Document("d", "files", "S", "text", "T", (section(block(1, "x y")),), metadata=metadata)
    kept = SectionChunker().execute(CONTEXT, source)[0].metadata
    assert (kept["year"], kept["phase"], kept["a00"]) == (2020, "PHASE1", 0)
    assert len(kept) == 16 + 3
    shown = str(kept["conditions"])
    assert len(shown) <= 2_000
    assert shown.split("|") == conditions.split("|")[: len(shown.split("|"))]  # whole ones only


def test_facets_that_a_document_does_not_know_are_those_that_its_source_told() -> None:
    told = StageContext("t", "d", "job", {"year": 2011, "retracted": True, "file_key": "k", "source": "core"})
    pdf = Document("d", "core", "S", "article", "T", (section(block(1, "x")),), metadata={"pages": 3})
    assert SectionChunker().execute(told, pdf)[0].metadata == {
        "pages": 3,
        "year": 2011,
        "retracted": True,
        "source": "core",
        "source_id": "S",
        "kind": "article",
    }
    assert SectionChunker().execute(told, document(section(block(1, "x"))))[0].metadata["year"] == 2020


def test_the_registered_implementation_opens_with_its_defaults() -> None:
    async def chunk() -> list[Chunk]:
        async with SECTIONS.open(SectionOptions(), Host(data_dir=Path(), blobs=NoBlobs())) as stage:
            return list(stage.execute(CONTEXT, document(section(block(1, "Some text.")))))

    assert [c.text for c in asyncio.run(chunk())] == ["Some text."]
