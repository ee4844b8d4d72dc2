"""Six articles of PubMed Central as PDF, read by PDFium and held against their JATS twins.

``MEDKG_TEST_PDF_PNG=FOLDER`` draws every block's box on its page, to be looked at.
"""

import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pypdfium2 as pdfium
import pytest
from lxml import etree

from medkg.chunk.stage import SectionChunker
from medkg.contracts.context import StageContext
from medkg.contracts.document import BlockKind, Document, SectionKind
from medkg.contracts.stages import encode_artefact
from medkg.parse.pdf.document import document_of
from medkg.parse.pdf.glyphs import PdfLimits, read_pages

pytestmark = pytest.mark.corpus

ARTICLES = ("PMC7808740", "PMC7901693", "PMC7909857", "PMC7924871", "PMC7966905", "PMC7971952")
RECOVERED = 0.95  # of the body's words, in order
# What stands at the head and foot of the pages of each, as a reader sees it.
FURNITURE = {
    "PMC7808740": (r"J\. LI ET AL\.", r"^RENAL FAILURE", r"^1(59|6\d)$"),
    "PMC7901693": (r"^RENAL FAILURE", r"^2021, VOL\. 43"),
    "PMC7909857": (r"^Park et al\.$", r"^kjronline\.org", r"^Key Principles of .* of AI$", r"^4[45]\d$"),
    "PMC7924871": (r"^Int\. J\. Environ\. Res\. Public Health 2021, 18, 2086$", r"^\d+ of 10$", r"2021, 18, x"),
    "PMC7966905": (r"Li et al\. BMC Health Services Research +\(2021\)", r"^Page \d+ of 11$"),
    "PMC7971952": (r"Ahmad et al\. Diagnostic Pathology +\(2021\)", r"^Page \d+ of 16$"),
}
_COLOURS = {BlockKind.TABLE: "blue", BlockKind.CAPTION: "green", BlockKind.REFERENCE: "orange"}
_FLOATS = {"fig", "table-wrap", "disp-formula", "inline-formula", "supplementary-material", "fn-group", "media", "fn"}
_FLOATS |= {"table-wrap-group", "fig-group", "boxed-text"}


@cache
def _read(path: Path) -> Document:
    return document_of(read_pages(path.read_bytes(), PdfLimits()), "record")


@pytest.fixture(params=ARTICLES)
def article(request: pytest.FixtureRequest, corpus: Path) -> tuple[str, Path, Document]:
    path = corpus / "pdf" / "pmc" / f"{request.param}.pdf"
    return request.param, path, _read(path)


def test_the_words_of_the_body_are_recovered_in_order(article: tuple[str, Path, Document], corpus: Path) -> None:
    name, _, document = article
    expected = _words(" ".join(_body(corpus / "jats" / "pmc" / f"{name}.xml")))
    found: list[str] = []
    for section in document.sections:
        if section.kind is SectionKind.BODY:
            found += _words(" ".join([section.title, *(block.text for block in section.blocks)]))
    common = longest_common_subsequence(expected, found)
    print(f"{name}: {common} of {len(expected)} words in order: {common / len(expected):.4f}")
    assert common / len(expected) >= RECOVERED


def test_no_passage_holds_page_furniture(article: tuple[str, Path, Document]) -> None:
    name, _, document = article
    passages = SectionChunker().execute(StageContext("t", "d", "j"), document)
    assert passages
    texts = [line for passage in passages for line in passage.text.splitlines()]
    for pattern in FURNITURE[name]:
        assert not [text for text in texts if re.search(pattern, text)], pattern


def test_every_passage_leads_to_a_box_on_its_page(article: tuple[str, Path, Document]) -> None:
    name, path, document = article
    pdf = pdfium.PdfDocument(path)
    for block in document.blocks():
        assert block.provenance.page is not None
        assert block.provenance.box is not None
        width, height = pdf.get_page_size(block.provenance.page - 1)
        x0, y0, x1, y1 = block.provenance.box
        assert 0 <= x0 < x1 <= width + 5, block.text[:80]
        assert 0 <= y0 < y1 <= height + 5, block.text[:80]
    for passage in SectionChunker().execute(StageContext("t", "d", "j"), document):
        assert passage.provenance is not None
        assert passage.provenance.box is not None
    if folder := os.environ.get("MEDKG_TEST_PDF_PNG"):
        _draw(pdf, document, Path(folder), name)


def test_a_box_holds_the_text_of_its_block(article: tuple[str, Path, Document]) -> None:
    """What PDFium finds within the box is in the block, word for word, but for parted ones."""
    _, path, document = article
    pdf = pdfium.PdfDocument(path)
    checked = 0
    for block in document.blocks():
        assert block.provenance.page is not None and block.provenance.box is not None
        page = pdf[block.provenance.page - 1]
        x0, y0, x1, y1 = block.provenance.box
        within = page.get_textpage().get_text_bounded(
            x0 - 1, page.get_height() - y1 - 1, x1 + 1, page.get_height() - y0 + 1
        )
        words = set(_words(within))
        own = [word for word in _words(block.text)[:8] if len(word) > 3]
        checked += len(own)
        missing = [word for word in own if word not in words and not any(word.startswith(part) for part in words)]
        assert len(missing) <= 0.4 * len(own) + 1, (block.text[:80], missing)
    assert checked > 10


def test_sections_and_references_are_those_of_the_article(corpus: Path) -> None:
    document = _read(corpus / "pdf" / "pmc" / "PMC7808740.pdf")
    assert document.title == (
        "Risk factors and outcomes of cardiovascular disease readmission within the first year after dialysis in "
        "peritoneal dialysis patients"
    )
    body = [section.path for section in document.sections if section.kind is SectionKind.BODY]
    assert [path for path in body if len(path) == 1] == [
        ("Introduction",), ("Materials and methods",), ("Results",), ("Discussion",), ("Conclusions",),
    ]  # fmt: skip
    assert ("Materials and methods", "Study population and data sources") in body
    assert ("Results", "Baseline characteristics of the study cohort") in body
    abstract = next(section for section in document.sections if section.kind is SectionKind.ABSTRACT)
    assert [block.text.split()[0] for block in abstract.blocks[:4]] == [
        "Background:", "Methods:", "Results:", "Conclusions:",
    ]  # fmt: skip
    references = [block for block in document.blocks() if block.kind is BlockKind.REFERENCE]
    assert references[0].text.startswith("[1] Ottesen TD")
    assert len([block for block in references if re.match(r"\[\d+\] ", block.text)]) >= 30
    tables = [block for block in document.blocks() if block.kind is BlockKind.CAPTION and block.role == "table"]
    assert [block.text[:8] for block in tables] == ["Table 1.", "Table 2.", "Table 3.", "Table 4."]


def test_hyphens_at_the_end_of_lines_and_ligatures_are_mended(corpus: Path) -> None:
    text = " ".join(block.text for block in _read(corpus / "pdf" / "pmc" / "PMC7808740.pdf").blocks())
    assert "cardiovascular readmission within the first year" in text
    assert "a single-center retrospective study" in text
    assert "follow-up" in text
    assert not re.search("[\u00ad\ufb00-\ufb06\ufffe\x02]", text)


def test_the_same_file_gives_the_same_bytes(corpus: Path) -> None:
    data = (corpus / "pdf" / "pmc" / "PMC7901693.pdf").read_bytes()
    one, other = (encode_artefact(document_of(read_pages(data, PdfLimits()), "r")) for _ in range(2))
    assert one == other


def longest_common_subsequence(first: list[str], second: list[str]) -> int:
    """Its length, by bit-parallel dynamic programming (Hyyrö 2004)."""
    places: dict[str, int] = {}
    for index, word in enumerate(first):
        places[word] = places.get(word, 0) | 1 << index
    whole = (1 << len(first)) - 1
    row = whole
    for word in second:
        matches = row & places.get(word, 0)
        row = (row + matches | row - matches) & whole
    return len(first) - row.bit_count()


def test_the_longest_common_subsequence_is_what_it_says() -> None:
    assert longest_common_subsequence(["a", "b", "c", "b", "d", "a", "b"], ["b", "d", "c", "a", "b", "a"]) == 4
    assert longest_common_subsequence([], ["a"]) == 0


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text.lower())


def _body(path: Path) -> Iterator[str]:
    """The running text of an article: headings and paragraphs, without floats and formulas."""

    def walk(element: "etree._Element") -> Iterator[str]:
        if not isinstance(element.tag, str) or element.tag in _FLOATS:
            return
        yield element.text or ""
        for child in element:
            yield from walk(child)
            yield child.tail or ""
        if element.tag in {"p", "title", "label", "list-item"}:
            yield " "

    body = etree.parse(str(path)).getroot().find("body")
    assert body is not None
    yield "".join(walk(body))


def _draw(pdf: pdfium.PdfDocument, document: Document, folder: Path, name: str) -> None:
    from PIL import ImageDraw

    folder.mkdir(parents=True, exist_ok=True)
    for index in range(len(pdf)):
        image = pdf[index].render(scale=1.2).to_pil().convert("RGB")
        pen = ImageDraw.Draw(image)
        for number, block in enumerate(document.blocks()):
            if block.provenance.page == index + 1 and block.provenance.box:
                box = [edge * 1.2 for edge in block.provenance.box]
                pen.rectangle(box, outline=_COLOURS.get(block.kind, "red"), width=2)
                pen.text((box[0] - 14, box[1]), str(number), fill="red")
        image.save(folder / f"{name}-{index + 1}.png")
