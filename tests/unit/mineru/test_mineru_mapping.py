"""MinerU's output as a document: facts about two real papers, and what hostile output comes to."""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.servers.mineru.recordings import PAPERS

from medkg.contracts.document import Block, BlockKind, Document, SectionKind
from medkg.contracts.errors import PayloadMalformedError, PayloadTooLargeError, SourceMalformedError
from medkg.contracts.stages import encode_artefact
from medkg.mineru.answers import EmptyResult, Output, read_answer
from medkg.mineru.api import Answer
from medkg.mineru.mapping import to_document
from medkg.mineru.mapping.pieces import clean, normalised
from medkg.mineru.mapping.tables import read_cells
from medkg.mineru.page_sizes import page_sizes_of

SHA = "ab" * 32
A4 = dict.fromkeys(range(1, 30), (595.0, 842.0))

HEADS_122 = [
    "Abstract", "1 Introduction", "2 Random Separator Optimisation", "2.1 Definition of Separator",
    "2.2 Random Separator Generation", "2.3 Separator Evaluation", "2.4 Separator Selection", "3 Experimental Setup",
    "3.1 Datasets and Models", "3.2 Optimisation Settings", "4 Results and Discussion",
    "4.1 Random Separators are Strong Baselines", "4.2 Random Sampling is a Strong Prompt Optimiser", "5 Analyses",
    "5.1 Language Space is Rich with Potentially Good Separators.",
    "5.2 Are Performant Random Separators Transferable?", "5.3 Beyond Text Classification Tasks", "6 Related Work",
    "7 Conclusion", "Limitations", "Acknowledgements", "References",
]  # fmt: skip
HEADS_127 = {
    "2.2.1 Generalization data sets", "2.3.1 Crafted surface pattern features", "3.4 Internal validity",
    "4.5 Generalization in large language models", "6 Conclusion", "Ethics Statement", "References",
}  # fmt: skip


def _load(corpus: Path, paper: str) -> dict[str, Any]:
    folder = corpus / "mineru" / paper
    names = {"content_list": "content_list", "content_list_v2": "content_list_v2", "middle": "middle"}
    return {
        field: json.loads((folder / f"{file}.json").read_text())
        for field, file in names.items()
        if (folder / f"{file}.json").is_file()
    }


def _heads(document: Document) -> list[str]:
    return [section.title for section in document.sections if section.path and section.path != ("Notes",)]


def _of(document: Document, kind: BlockKind) -> list[Block]:
    return [block for block in document.blocks() if block.kind is kind]


@pytest.mark.corpus
@pytest.mark.parametrize("form", ["content_list", "content_list_v2", "middle"])
def test_the_first_paper_has_the_heads_tables_and_boxes_that_a_reader_sees(corpus: Path, form: str) -> None:
    files = _load(corpus, PAPERS[0])
    given = {"middle": files["middle"]} if form == "middle" else {form: files[form], "middle": files["middle"]}
    document = to_document(Output("3.4.4", "pipeline", **given), SHA)
    assert document.title == (
        "Strings from the Library of Babel: Random Sampling as a Strong Baseline for Prompt Optimisation"
    )
    assert _heads(document) == HEADS_122
    assert [s.path for s in document.sections if s.title == "2.3 Separator Evaluation"] == [
        ("2 Random Separator Optimisation", "2.3 Separator Evaluation")
    ]
    tables = _of(document, BlockKind.TABLE)
    assert len(tables) == 13
    assert all(len(table.rows) > 1 and table.text for table in tables)
    assert "PROMPT EXAMPLES" in tables[0].rows[0]
    assert any(block.text.startswith("Table 1: Examples of prompts") for block in _of(document, BlockKind.CAPTION))
    references = [section for section in document.sections if section.kind is SectionKind.REFERENCES]
    assert sum(len(section.blocks) for section in references) == 41
    assert document.metadata == {"pages": 11, "parser": "mineru"}


@pytest.mark.corpus
async def test_the_second_paper_has_boxes_though_its_page_sizes_are_only_in_the_pdf(corpus: Path) -> None:
    files = _load(corpus, PAPERS[1])
    sizes = await page_sizes_of((corpus / "mineru" / PAPERS[1] / "paper.pdf").read_bytes())
    assert len(sizes) == 17
    document = to_document(Output("3.4.4", "pipeline", content_list=files["content_list"]), SHA, sizes)
    assert document.title.startswith("Principles from Clinical Research for NLP Model Generalization")
    assert set(_heads(document)) >= HEADS_127
    assert len(_of(document, BlockKind.TABLE)) == 4
    assert len(_of(document, BlockKind.REFERENCE)) == 67
    _check_boxes(document, sizes)


@pytest.mark.corpus
@pytest.mark.parametrize("form", ["content_list", "content_list_v2", "middle"])
def test_every_block_has_its_page_and_a_box_on_it(corpus: Path, form: str) -> None:
    files = _load(corpus, PAPERS[0])
    given = {"middle": files["middle"]} if form == "middle" else {form: files[form], "middle": files["middle"]}
    _check_boxes(to_document(Output("3.4.4", "pipeline", **given), SHA), A4)


def _check_boxes(document: Document, sizes: dict[int, tuple[float, float]]) -> None:
    for block in document.blocks():
        assert block.provenance.page in sizes
        assert block.provenance.box is not None
        x0, y0, x1, y1 = block.provenance.box
        width, height = sizes[block.provenance.page]
        assert 0 <= x0 < x1 <= width + 1
        assert 0 <= y0 < y1 <= height + 1


@pytest.mark.corpus
@pytest.mark.parametrize("paper", PAPERS)
def test_no_page_furniture_is_left_and_footnotes_stand_apart(corpus: Path, paper: str) -> None:
    files = _load(corpus, paper)
    document = to_document(Output("3.4.4", "pipeline", content_list=files["content_list"]), SHA, A4)
    furniture = {
        item["text"].strip() for item in files["content_list"] if item["type"] in {"page_number", "footer", "header"}
    }
    assert furniture
    assert not furniture & {block.text for block in document.blocks()}
    notes = next(section for section in document.sections if section.path == ("Notes",))
    assert notes.kind is SectionKind.BACK
    assert len(notes.blocks) == sum(item["type"] == "page_footnote" for item in files["content_list"])


@pytest.mark.corpus
def test_the_same_output_gives_the_same_bytes(corpus: Path) -> None:
    files = _load(corpus, PAPERS[0])
    one, other = (encode_artefact(to_document(Output("3", "p", middle=files["middle"]), SHA)) for _ in range(2))
    assert one == other


def test_cells_that_span_are_repeated_in_rows_and_not_in_lines() -> None:
    cells = read_cells(
        "<table><tr><td rowspan=2>arm</td><td colspan=2>events</td></tr><tr><td>n</td><td>%</td></tr>"
        "<tr><td>A &amp; B</td><td>3</td><td>7<sup>1</sup></td></tr></table>"
    )
    assert cells is not None
    assert cells.rows == [["arm", "events", "events"], ["arm", "n", "%"], ["A & B", "3", "71"]]
    assert cells.lines == ["arm | events", "n | %", "A & B | 3 | 71"]
    assert cells.header_rows == 2


@pytest.mark.parametrize(
    "html",
    [
        "",
        "no table",
        "<table>" * 5_000,
        "<table><tr>" + "<td colspan=1000 rowspan=1000>x</td>" * 50 + "</tr>" * 2_000,
        "<table>" + "<tr><td rowspan=99999999999 colspan=-1>x" * 50_000,
        "<!DOCTYPE x [<!ENTITY a 'aaaaaaaa'>]><table><tr><td>&a;&a;</table>",
    ],
)
def test_hostile_tables_are_bounded(html: str) -> None:
    cells = read_cells(html)
    assert cells is None or sum(map(len, cells.rows)) <= 200_000


def test_boxes_are_points_within_the_page() -> None:
    assert normalised([0, 500, 1000, 2000], (600.0, 800.0)) == (0.0, 400.0, 600.0, 800.0)
    assert normalised([1, 2, 3], (600.0, 800.0)) is None
    assert normalised(["a", 2, 3, 4], (600.0, 800.0)) is None
    assert normalised([0, 0, 1, 1], None) is None


def test_markdown_escapes_and_inline_tags_go_and_formulas_stay() -> None:
    assert clean(r"raphael\_tang<sup>1</sup> &lt; $x_{1}\_y <b>$") == r"raphael_tang1 < $x_{1}\_y <b>$"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(
            st.sampled_from(["type", "text", "bbox", "page_idx", "text_level", "table_body", "list_items", "content"]),
            inner,
            max_size=6,
        )
    ),
    max_leaves=40,
)


@settings(deadline=None)  # a busy machine is no fault
@given(json_values)
def test_no_output_whatever_raises_anything_but_a_named_error(value: Any) -> None:
    for output in (
        Output("", "", content_list=value),
        Output("", "", content_list_v2=value),
        Output("", "", middle=value),
    ):
        try:
            document = to_document(output, SHA, A4)
        except (PayloadMalformedError, PayloadTooLargeError):
            continue
        encode_artefact(document)


def test_more_pieces_than_a_document_can_have_are_refused() -> None:
    with pytest.raises(PayloadTooLargeError):
        to_document(Output("", "", content_list=[{"type": "text", "text": "x"}] * 200_001), SHA)


def _zip(files: dict[str, bytes]) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return target.getvalue()


def test_a_zip_is_read_too() -> None:
    data = _zip({"f/auto/f_content_list_v2.json": b"[[]]", "f/auto/f_middle.json": b'{"_version_name": "3.4.4"}'})
    output = read_answer(Answer(data, "application/zip"), max_bytes=1_000_000)
    assert output.content_list_v2 == [[]]
    assert output.version == "3.4.4"


def test_a_zip_that_unpacks_to_far_more_than_it_is_gets_refused() -> None:
    bomb = _zip({"f_content_list.json": b" " * 50_000_000 + b"[]"})
    with pytest.raises(SourceMalformedError, match="50000002 bytes"):
        read_answer(Answer(bomb, "application/zip"), max_bytes=1_000_000_000)


@pytest.mark.parametrize("data", [b"PK\x03\x04", b"PK\x03\x04" + b"\x00" * 200])
def test_a_broken_zip_is_a_named_error(data: bytes) -> None:
    with pytest.raises(SourceMalformedError):
        read_answer(Answer(data, "application/zip"), max_bytes=1_000)


def test_an_answer_without_output_is_empty_and_not_an_empty_document() -> None:
    for body in (b'{"results": {}}', b'{"results": {"a": {}}}', b'{"results": {"a": {"content_list": null}}}', b"{}"):
        with pytest.raises(EmptyResult):
            read_answer(Answer(body, "application/json"), max_bytes=1_000)
