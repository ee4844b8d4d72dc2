"""Reading order, furniture, paragraphs and words of PDF pages: decided on plain data, without any PDF."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medkg.contracts.document import BlockKind, SectionKind
from medkg.contracts.errors import NeedsOcrError, PayloadMalformedError, PayloadUnsupportedError
from medkg.parse.pdf.document import document_of
from medkg.parse.pdf.furniture import furniture_of
from medkg.parse.pdf.layout import find_gutter, lines_of, reading_order
from medkg.parse.pdf.page import Page, Run, Style
from medkg.parse.pdf.words import HYPHEN, Vocabulary, mended

PLAIN = Style(10.0)
WIDTH, HEIGHT = 600.0, 800.0
PROSE = "the patients were asked about their pain"


def run(text: str, x: float, y: float, *, width: float | None = None, style: Style = PLAIN) -> Run:
    """Text at a baseline; as wide as its characters, or as it is said."""
    end = x + (width if width is not None else 0.5 * style.size * len(text))
    return Run(text, x, end, y - 0.75 * style.size, y + 0.22 * style.size, y, style)


def page(runs: list[Run], number: int = 1) -> Page:
    return Page(number, WIDTH, HEIGHT, runs, characters=sum(len(each.text) for each in runs))


def column(name: str, x: float, *, top: float = 100, lines: int = 20, width: float = 230) -> list[Run]:
    return [run(f"{name} {number} {PROSE}", x, top + 12 * number, width=width) for number in range(lines)]


def words(page: Page) -> list[str]:
    """The first two words of each line, in reading order."""
    return [" ".join(line.text.split()[:2]) for group in reading_order(page) for line in group]


def test_two_columns_are_read_one_after_the_other() -> None:
    left, right = column("left", 50), column("right", 320)
    mixed = [each for pair in zip(left, right, strict=True) for each in pair]
    assert words(page(mixed)) == [f"left {n}" for n in range(20)] + [f"right {n}" for n in range(20)]


def test_three_columns_are_read_one_after_the_other() -> None:
    runs = column("a", 40, width=150) + column("c", 400, width=150) + column("b", 220, width=150)
    assert words(page(runs)) == [f"{name} {n}" for name in "abc" for n in range(20)]


def test_what_spans_the_columns_parts_them() -> None:
    wide = run("A title right across the page, and a long one", 50, 350, width=500, style=Style(10.0, is_bold=True))
    runs = column("left", 50) + column("right", 320) + [wide]
    runs += column("below", 50, top=370, lines=10) + column("beside", 320, top=370, lines=10)
    expected = [f"left {n}" for n in range(20)] + [f"right {n}" for n in range(20)] + ["A title"]
    assert words(page(runs)) == expected + [f"below {n}" for n in range(10)] + [f"beside {n}" for n in range(10)]


def test_an_abstract_across_the_page_is_read_before_the_columns_below_it() -> None:
    abstract = [run(f"abstract {n} {PROSE} {PROSE}", 50, 60 + 12 * n, width=500) for n in range(12)]
    runs = column("left", 50, top=260) + abstract + column("right", 320, top=260)
    assert words(page(runs))[:13] == [f"abstract {n}" for n in range(12)] + ["left 0"]


def test_one_column_has_no_gutter_however_ragged() -> None:
    lines = lines_of(page([run(PROSE[: 10 + (7 * n) % 30], 50, 100 + 12 * n) for n in range(30)]))
    assert find_gutter(lines) is None


def test_a_table_is_no_pair_of_columns() -> None:
    cells = [run(text, x, 100 + 12 * n) for n in range(20) for x, text in ((50, "Age, years"), (320, "46.9 (15)"))]
    assert words(page(cells))[:4] == ["Age, years", "46.9 (15)", "Age, years", "46.9 (15)"]


def test_a_superscript_stays_in_its_line_and_words_keep_their_spaces() -> None:
    small = Style(6.0)
    runs = [run("Huang", 50, 100), run("a,b", 75, 96, style=small), run("and others", 90, 100)]
    assert [line.text for line in lines_of(page(runs))] == ["Huanga,b and others"]


@settings(deadline=None)  # a busy machine is no fault
@given(
    st.lists(
        st.tuples(st.integers(0, 550), st.integers(20, 780), st.text("abc ", min_size=1, max_size=30)),
        min_size=0,
        max_size=60,
    )
)
def test_every_run_is_read_exactly_once(placed: list[tuple[int, int, str]]) -> None:
    runs = [run(text, x, y) for x, y, text in placed]
    read = [each for group in reading_order(page(runs)) for line in group for each in line.runs]
    assert sorted(map(id, read)) == sorted(id(each) for each in runs if each.text.strip())


def _with_lines(pages: list[Page]) -> set[str]:
    seen = [(each, lines_of(each)) for each in pages]
    dropped = furniture_of(seen)
    return {line.text for _, lines in seen for line in lines if id(line) in dropped}


def test_running_heads_feet_and_page_numbers_are_furniture() -> None:
    pages = []
    for number in range(1, 5):
        runs = column("left", 50)
        runs += [run(f"{158 + number}", 50, 30), run("J. LI ET AL.", 90, 30), run(f"Vol. 43, p. {number}", 50, 790)]
        pages.append(page(runs, number))
    found = _with_lines(pages)
    assert {"159", "J. LI ET AL.", "Vol. 43, p. 1", "Vol. 43, p. 4"} <= found
    assert not any(text.startswith("left") for text in found)


def test_a_year_in_the_last_row_of_a_table_is_no_page_number() -> None:
    pages = []
    for number in (1, 2):
        cells = [run(text, x, 700 + 12 * n) for n in range(6) for x, text in ((50, f"Study {n}"), (320, f"201{n}"))]
        pages.append(page(cells + column("left", 50), number))
    assert "2015" not in _with_lines([pages[0]])


def test_words_that_a_line_has_parted_are_one_again() -> None:
    vocabulary = Vocabulary(["a follow-up of cardiovascular risk", "non-parametric"])
    assert mended(["the cardiovas" + HYPHEN, "cular risk"], vocabulary) == "the cardiovascular risk"
    assert mended(["a follow" + HYPHEN, "up visit"], vocabulary) == "a follow-up visit"
    assert mended(["the long-", "term outcome"], vocabulary) == "the long-term outcome"
    assert mended(["COVID" + HYPHEN, "19 and IL-", "6"], vocabulary) == "COVID-19 and IL-6"
    assert mended(["Kaplan-", "Meier"], vocabulary) == "Kaplan-Meier"
    assert mended(["a range -", "see below"], vocabulary) == "a range - see below"


def test_ligatures_are_letters() -> None:
    assert mended(["e\ufb03cient \ufb01gures \ufb02ow"], Vocabulary([])) == "efficient figures flow"


@settings(deadline=None)  # a busy machine is no fault
@given(st.lists(st.text("ab-\u00ad ", max_size=12), max_size=8))
def test_mending_loses_no_letter(lines: list[str]) -> None:
    letters = [each for line in lines for each in line if each in "ab"]
    assert [each for each in mended(lines, Vocabulary(lines)) if each in "ab"] == letters


BOLD = Style(12.0, is_bold=True)


def _article() -> list[Page]:
    """Two columns under a title and an abstract, a second page, references."""
    first = [run("Recovery from sciatica in a registry", 50, 60, style=Style(18.0, is_bold=True))]
    first += [run("A. Author and B. Author", 50, 85)]
    first += [run("Introduction", 50, 120, style=BOLD), *column("left", 50, top=140), *column("right", 320, top=140)]
    second = [run("2.1. Sample size", 50, 60, style=Style(10.0, is_italic=True)), *column("next", 50, top=80)]
    second += [run("References", 320, 60, style=BOLD)]
    second += [run(f"{n}. Author A. A title of a paper. J Paper. 2020", 320, 60 + 24 * n) for n in range(1, 9)]
    return [page(first), page(second, 2)]


def test_headings_sections_and_references_are_found_and_every_block_has_its_place() -> None:
    document = document_of(iter(_article()), "record")
    assert document.title == "Recovery from sciatica in a registry"
    paths = {section.path: section.kind for section in document.sections}
    assert paths["Introduction",] is SectionKind.BODY
    assert paths["References",] is SectionKind.REFERENCES
    assert any(path[-1] == "2.1. Sample size" for path in paths if path)
    references = [block for block in document.blocks() if block.kind is BlockKind.REFERENCE]
    assert len(references) == 8
    assert {block.provenance.page for block in document.blocks()} == {1, 2}
    assert all(block.provenance.box for block in document.blocks())
    assert document.doc_id == ""


def test_a_page_that_is_a_picture_is_refused_and_never_empty_text() -> None:
    picture = Page(2, WIDTH, HEIGHT, image_share=0.98)
    with pytest.raises(NeedsOcrError, match="page 2"):
        document_of([page(column("left", 50)), picture], "record")


def test_text_that_stands_for_nothing_needs_ocr() -> None:
    strange = page(column("left", 50))
    strange.unmapped = strange.characters // 2
    with pytest.raises(NeedsOcrError, match="stand for nothing"):
        document_of([strange], "record")


def test_drawings_without_text_need_ocr_and_nothing_at_all_is_malformed() -> None:
    with pytest.raises(NeedsOcrError):
        document_of([Page(1, WIDTH, HEIGHT, drawings=500)], "record")
    with pytest.raises(PayloadMalformedError, match="nothing on its pages"):
        document_of([Page(1, WIDTH, HEIGHT)], "record")
    with pytest.raises(PayloadUnsupportedError, match="beside its pages"):
        document_of([Page(1, WIDTH, HEIGHT, hidden=40)], "record")


def test_a_single_line_is_text_and_not_only_a_title() -> None:
    document = document_of([page([run("Hello, world!", 50, 300, style=BOLD)])], "record")
    assert [block.text for block in document.blocks()] == ["Hello, world!"]
