"""An article becomes sections and blocks: every word, in order, none glued, each with its place."""

import html
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.corpus.provenance import bare, lost_blocks

from medkg.contracts.context import StageContext
from medkg.contracts.document import Block, BlockKind, Document, RawPayload, SectionKind
from medkg.contracts.errors import (
    MedkgError,
    PayloadMalformedError,
    PayloadTooLargeError,
    PayloadUnsupportedError,
)
from medkg.contracts.media import JATS
from medkg.contracts.stages import encode_artefact
from medkg.parse.jats import parse_article, tables

CTX = StageContext("t", "doc", "job")
MATHML = 'xmlns:mml="http://www.w3.org/1998/Math/MathML"'


def article(body: str = "", meta: str = "", back: str = "", attributes: str = "", before: str = "") -> RawPayload:
    text = (
        f"{before}<article {MATHML} {attributes}><front><journal-meta><journal-title>J. Med.</journal-title>"
        f"</journal-meta><article-meta>{meta}</article-meta></front><body>{body}</body>{back}</article>"
    )
    return RawPayload("files", "PMC1", JATS, text=text)


def parse(payload: RawPayload) -> Document:
    document = parse_article(CTX, payload)
    assert lost_blocks(document, payload) == []
    return document


def blocks(body: str) -> list[Block]:
    return parse(article(body)).blocks()


def texts(body: str) -> list[str]:
    return [block.text for block in blocks(body)]


@pytest.mark.parametrize(
    ("markup", "text"),
    [
        ("H<sub>2</sub>O and CO<sub>2</sub>", "H2O and CO2"),
        ("10<sup>6</sup> cells, 10<sup>\N{MINUS SIGN}3</sup> M", "10^6 cells, 10^\N{MINUS SIGN}3 M"),
        ("CD4<sup>+</sup> T, Ca<sup>2+</sup>, 1<sup>st</sup>", "CD4+ T, Ca2+, 1st"),
        ('disease<sup><xref ref-type="bibr" rid="r1">12</xref></sup> is', "disease 12 is"),
        ('in 2003<sup><xref ref-type="bibr">4</xref></sup>', "in 2003 4"),
        ('cells<xref ref-type="fn">a</xref>are', "cells a are"),
        ('as shown [<xref ref-type="bibr">3</xref>, <xref ref-type="bibr">4</xref>].', "as shown [3, 4]."),
        ("<italic>E. coli</italic>-based, <bold>b</bold>old", "E. coli-based, bold"),
        ("one<break/>two", "one two"),
        ("a <named-content>n<italic>a</italic>med</named-content> b", "a named b"),
        ("see <ext-link>http://x.test</ext-link>.", "see http://x.test."),
        ("a<inline-graphic/>b", "ab"),
        ("&#945;-helix <!-- c -->x<?pi?>y", "\N{GREEK SMALL LETTER ALPHA}-helix xy"),
        ("spread\n   over\tlines\u00a0here", "spread over lines here"),
        ("<unknown-thing>kept</unknown-thing> too", "kept too"),
    ],
)
def test_inline_markup_is_flattened_without_losing_or_gluing_words(markup: str, text: str) -> None:
    assert texts(f"<p>{markup}</p>") == [text]


@pytest.mark.parametrize(
    ("math", "text"),
    [
        ("<mml:msub><mml:mi>x</mml:mi><mml:mn>1</mml:mn></mml:msub><mml:mo>=</mml:mo><mml:mn>5</mml:mn>", "x_1=5"),
        (
            "<mml:mfrac><mml:mrow><mml:mi>a</mml:mi><mml:mo>+</mml:mo><mml:mi>b</mml:mi></mml:mrow>"
            "<mml:mi>c</mml:mi></mml:mfrac>",
            "(a+b)/c",
        ),
        ("<mml:msqrt><mml:mi>x</mml:mi><mml:mi>y</mml:mi></mml:msqrt>", "√(x y)"),
        ("<mml:msubsup><mml:mi>k</mml:mi><mml:mi>i</mml:mi><mml:mn>2</mml:mn></mml:msubsup>", "k_i^2"),
        ("<mml:semantics><mml:mi>s</mml:mi><mml:annotation>\\sigma</mml:annotation></mml:semantics>", "s"),
        ("<mml:mfenced><mml:mi>z</mml:mi></mml:mfenced>", "(z)"),
    ],
)
def test_formulas_are_text(math: str, text: str) -> None:
    assert texts(f"<p>with <inline-formula><mml:math>{math}</mml:math></inline-formula> here</p>") == [
        f"with {text} here"
    ]
    (block,) = blocks(f"<disp-formula><mml:math>{math}</mml:math></disp-formula>")
    assert (block.kind, block.text) == (BlockKind.EQUATION, text)


def test_tex_is_preferred_and_loses_its_preamble() -> None:
    tex = "\\documentclass{x}\\begin{document}$$E=mc^2$$\\end{document}"
    forms = f"<mml:math><mml:mi>E</mml:mi></mml:math><tex-math>{tex}</tex-math>"
    body = f"<disp-formula><alternatives>{forms}</alternatives><label>(1)</label></disp-formula>"
    assert texts(body) == ["$$E=mc^2$$ (1)"]


def test_sections_nest_and_text_after_a_subsection_stands_under_its_own_heading() -> None:
    document = parse(
        article(
            "<p>zero</p><sec><label>1</label><title>A <italic>x</italic></title><p>one</p>"
            "<sec><title>B</title><p>two</p></sec><p>three</p></sec><sec><title>Empty</title></sec><sec><p>four</p></sec>"
        )
    )
    assert [(s.path, [b.text for b in s.blocks]) for s in document.sections] == [
        ((), ["zero"]),
        (("1 A x",), ["one"]),
        (("1 A x", "B"), ["two"]),
        (("1 A x",), ["three"]),
        (("Empty",), []),
        ((), ["four"]),
    ]
    assert len({s.section_id for s in document.sections}) == len(document.sections)


def test_blocks_within_a_paragraph_keep_their_order() -> None:
    found = blocks(
        "<p>before <list><list-item><label>1.</label><p>one</p></list-item><list-item><p>two</p><list>"
        "<list-item><p>deep</p></list-item></list></list-item></list> between "
        "<fig><label>Figure 1.</label><caption><title>Title.</title><p>Para.</p></caption><graphic/></fig> after</p>"
    )
    assert [(b.kind, b.text) for b in found] == [
        (BlockKind.PARAGRAPH, "before"),
        (BlockKind.LIST_ITEM, "1. one"),
        (BlockKind.LIST_ITEM, "two"),
        (BlockKind.LIST_ITEM, "deep"),
        (BlockKind.PARAGRAPH, "between"),
        (BlockKind.CAPTION, "Figure 1. Title. Para."),
        (BlockKind.PARAGRAPH, "after"),
    ]
    assert found[5].role == "figure"


def test_unknown_elements_are_walked_where_they_hold_blocks() -> None:
    assert texts("<question-wrap>a<question><p>b</p></question>c<x>d</x></question-wrap>") == ["a", "b", "cd"]


TABLE = """<table-wrap><label>Table 1</label><caption><p>Doses</p></caption><alternatives><graphic/><table>
<thead><tr><th rowspan="2">Drug</th><th colspan="2">Dose</th></tr><tr><th>low</th><th>high</th></tr></thead>
<tbody><tr><td rowspan="2">X<sup>a</sup></td><td>1 <break/>mg</td><td>2</td></tr><tr><td>3</td></tr></tbody>
</table></alternatives>
<table-wrap-foot><fn><label>a</label><p>Note.</p></fn></table-wrap-foot></table-wrap>"""


def test_a_table_is_a_grid_of_cells_with_its_heading_rows_and_notes() -> None:
    caption, table, note = blocks(TABLE)
    assert (caption.kind, caption.role, caption.text) == (BlockKind.CAPTION, "table", "Table 1 Doses")
    assert table.rows == (
        ("Drug", "Dose", "Dose"),
        ("Drug", "low", "high"),
        ("Xa", "1 mg", "2"),
        ("Xa", "3", ""),
    )
    assert table.header_rows == 2
    assert table.text == "Drug | Dose\nlow | high\nXa | 1 mg | 2\n3"
    assert (note.role, note.text) == ("footnote", "a Note.")


@pytest.mark.parametrize("span", ["999999999", "-1", "x", "\u00b2", "0", ""])
def test_a_span_that_cannot_be_does_no_harm(span: str) -> None:
    (table,) = blocks(f'<table><tr><td colspan="{span}" rowspan="{span}">a</td></tr><tr><td>b</td></tr></table>')
    assert table.text == "a\nb"
    assert len(table.rows[0]) <= 1_000


def test_a_table_of_spans_only_is_bounded() -> None:
    rows = '<tr><td colspan="1000">a</td></tr>' * 600
    with pytest.raises(PayloadTooLargeError, match="cells"):
        parse(article(f"<table>{rows}</table>"))


def test_a_table_over_the_bound_is_given_up_before_it_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    read_row, rows = tables._row, []
    monkeypatch.setattr(tables, "MAX_CELLS", 50)
    monkeypatch.setattr(tables, "_row", lambda row, spans: rows.append(row) or read_row(row, spans))  # type: ignore[func-returns-value]  # append, then read
    with pytest.raises(PayloadTooLargeError, match="cells"):
        parse(article("<table>" + '<tr><td colspan="10">a</td></tr>' * 100 + "</table>"))
    assert len(rows) == 6


def test_front_matter_gives_title_identifiers_and_facts() -> None:
    meta = (
        '<article-id pub-id-type="pmc">77</article-id><article-id pub-id-type="doi">10.1/x</article-id>'
        '<article-id pub-id-type="pmid">5</article-id>'
        "<article-categories><subj-group><subject>Biology</subject></subj-group></article-categories>"
        "<title-group><article-title>On <italic>X</italic></article-title><subtitle>A study</subtitle></title-group>"
        '<contrib-group><contrib contrib-type="author"/><contrib contrib-type="editor"/><contrib/></contrib-group>'
        "<pub-date><year>2021</year></pub-date><pub-date><year>2020</year></pub-date>"
        '<kwd-group><kwd>asthma</kwd></kwd-group><kwd-group kwd-group-type="MESH">'
        '<kwd vocab-term-identifier="https://id.nlm.nih.gov/mesh/D001249">Asthma</kwd></kwd-group>'
    )
    document = parse(article("<p>x</p>", meta, attributes='article-type="research-article" xml:lang="EN"'))
    assert document.title == "On X: A study"
    assert document.identifiers == {"pmcid": "PMC77", "doi": "10.1/x", "pmid": "5"}
    assert document.language == "en"
    assert document.metadata == {
        "article_type": "research-article",
        "journal": "J. Med.",
        "year": 2020,
        "authors": 2,
        "retracted": False,
    }
    assert [(b.role, b.text, b.attributes) for b in document.blocks() if b.role] == [
        ("subject", "Biology", {}),
        ("keyword", "asthma", {}),
        ("mesh_term", "Asthma", {"mesh_id": "D001249"}),
    ]


@pytest.mark.parametrize(
    ("attributes", "meta", "is_retracted"),
    [
        ('article-type="retraction"', "", True),
        ('article-type="research-article"', '<related-article related-article-type="retraction-forward"/>', True),
        ('article-type="correction"', '<related-article related-article-type="corrected-article"/>', False),
        ("", '<pub-history><event event-type="retracted"/></pub-history>', True),
        ("", "", False),
    ],
)
def test_what_is_or_was_retracted_says_so(attributes: str, meta: str, is_retracted: bool) -> None:
    assert parse(article("<p>x</p>", meta, attributes=attributes)).metadata["retracted"] is is_retracted


def test_abstracts_back_matter_references_and_attached_articles_stand_apart() -> None:
    document = parse(
        article(
            "<p>body</p>",
            "<abstract><sec><title>Aim</title><p>why</p></sec></abstract><trans-abstract><title>Résumé</title><p>pourquoi</p></trans-abstract>",
            "<back><ack><title>Thanks</title><p>all</p></ack><fn-group><fn><p>none declared</p></fn></fn-group>"
            "<ref-list><title>Literature</title><ref><label>1</label><element-citation><name><surname>Doe</surname>"
            "<given-names>J</given-names></name><article-title>On x</article-title><year>2001</year>"
            '<pub-id pub-id-type="doi">10.1/y</pub-id></element-citation></ref>'
            '<ref><mixed-citation>Roe K. <italic>Y</italic>. 2002.<pub-id pub-id-type="pmid">9</pub-id>'
            "</mixed-citation></ref></ref-list></back>"
            "<floats-group><fig><caption><p>floating</p></caption></fig></floats-group>"
            '<sub-article article-type="reviewer-report"><front-stub/><body><p>review</p></body></sub-article>',
        )
    )
    assert [(s.kind, s.path, [b.text for b in s.blocks]) for s in document.sections] == [
        (SectionKind.ABSTRACT, ("Abstract", "Aim"), ["why"]),
        (SectionKind.ABSTRACT, ("Résumé",), ["pourquoi"]),
        (SectionKind.BODY, (), ["body"]),
        (SectionKind.BACK, ("Thanks",), ["all"]),
        (SectionKind.BACK, (), ["none declared"]),
        (SectionKind.REFERENCES, ("Literature",), ["1, Doe J, On x, 2001, 10.1/y", "Roe K. Y. 2002. 9"]),
        (SectionKind.BODY, (), ["floating"]),
        (SectionKind.BACK, ("reviewer-report",), ["review"]),
    ]
    references = document.sections[5].blocks
    assert [b.attributes for b in references] == [{"doi": "10.1/y"}, {"pmid": "9"}]
    assert {b.kind for b in references} == {BlockKind.REFERENCE}


def test_elements_in_a_namespace_are_read_and_their_paths_resolve() -> None:
    text = '<article xmlns="http://jats.test/ns"><front/><body><p>one</p><sec><title>T</title><p>two</p></sec></body></article>'
    document = parse(RawPayload("files", "PMC1", JATS, text=text))
    assert [b.text for b in document.blocks()] == ["one", "two"]


def test_a_declared_encoding_does_not_hold_for_text_that_is_decoded() -> None:
    payload = article("<p>é</p>", before='<?xml version="1.0" encoding="ISO-8859-1"?>')
    assert [b.text for b in parse(payload).blocks()] == ["é"]


def test_no_file_is_read_for_a_dtd(tmp_path: Path) -> None:
    (tmp_path / "evil.dtd").write_text('<!ATTLIST article article-type CDATA "from-the-dtd">')
    dtd = f'<!DOCTYPE article SYSTEM "{tmp_path}/evil.dtd">'
    assert "article_type" not in parse(article("<p>x</p>", before=dtd)).metadata


def test_no_address_is_asked_for_a_dtd() -> None:
    dtd = '<!DOCTYPE article PUBLIC "-//NLM//DTD JATS//EN" "http://127.0.0.1:9/x.dtd">'
    assert [b.text for b in parse(article("<p>x</p>", before=dtd)).blocks()] == ["x"]


def test_a_named_entity_of_the_dtd_is_read_without_the_dtd() -> None:
    dtd = '<!DOCTYPE article SYSTEM "http://nowhere.invalid/x.dtd">'
    document = parse_article(CTX, article("<p>&alpha;-helix&nbsp;&unknown;</p>", before=dtd))
    assert [b.text for b in document.blocks()] == ["\N{GREEK SMALL LETTER ALPHA}-helix &unknown;"]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", PayloadMalformedError),
        ("<article>", PayloadMalformedError),
        ("no xml", PayloadMalformedError),
        ("<article><front/>\x00</article>", PayloadMalformedError),
        ("<article><front/>\ud800</article>", PayloadMalformedError),
        ("<html/>", PayloadUnsupportedError),
        ("<article><para/></article>", PayloadUnsupportedError),
        ('<!DOCTYPE a [<!ENTITY a "x">]><article><front/><body>&a;</body></article>', PayloadUnsupportedError),
        ("<article><front/><body>" + "<sec>" * 200 + "</sec>" * 200 + "</body></article>", PayloadTooLargeError),
        (
            "<article><front/><body><p>" + "<bold>" * 200 + "</bold>" * 200 + "</p></body></article>",
            PayloadTooLargeError,
        ),
        ("<article><front/><body>" + "<sec>" * 90_000 + "</sec>" * 90_000 + "</body></article>", PayloadMalformedError),
    ],
)
def test_what_is_no_article_is_refused_by_name(text: str, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"PMC1|nested"):
        parse_article(CTX, RawPayload("files", "PMC1", JATS, text=text))


@pytest.mark.timeout(20)
def test_a_hundred_thousand_siblings_cost_what_they_weigh() -> None:
    document = parse_article(CTX, article("<p>word</p>" * 100_000))
    assert len(document.blocks()) == 100_000
    assert document.blocks()[-1].provenance.path == "/article/body[1]/p[100000]"


@pytest.mark.timeout(20)
def test_a_flood_of_headings_is_bounded() -> None:
    body = (
        f"<sec><title>{'h' * 400}</title>" * 60
        + "".join(f"<sec><title>x{n}</title></sec>" for n in range(50_000))
        + "</sec>" * 60
    )
    with pytest.raises(PayloadTooLargeError, match="characters"):
        parse_article(CTX, article(body))


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "body",
    [
        "<x>" * 100 + "<i>w</i>" * 50_000 + "</x>" * 100,
        "<p>" + "<sup>1</sup>" * 100_000 + "</p>",
        "<tex-math>" + "\\begin{document}" * 50_000 + "</tex-math>",
        "<table><tr>" + "<td>a</td>" * 100_000 + "</tr></table>",
        "<p>" + "&#8195;" * 500_000 + "w</p>",
        "<list>" + "<list-item><label>1</label></list-item>" * 50_000 + "</list>",
    ],
)
def test_no_shape_of_an_article_takes_long(body: str) -> None:
    parse_article(CTX, article(body))


_NAMES = st.sampled_from(
    (
        *("p", "sec", "title", "label", "list", "list-item", "fig", "caption", "table-wrap", "table", "tr", "td", "th"),
        *(
            "fn",
            "x",
            "bold",
            "sup",
            "xref",
            "disp-formula",
            "mml:math",
            "mml:msub",
            "mml:mi",
            "alternatives",
            "ref-list",
        ),
        *("ref", "def-item", "boxed-text", "table-wrap-foot", "graphic", "tex-math", "term", "thead", "mixed-citation"),
        *("supplementary-material", "def-list", "disp-quote", "inline-formula"),
    )
)
_TREES = st.recursive(
    st.text(alphabet="abW12 .\n&<", max_size=6).map(html.escape),
    lambda inner: st.tuples(_NAMES, st.lists(inner, max_size=4)).map(lambda t: f"<{t[0]}>{''.join(t[1])}</{t[0]}>"),
    max_leaves=25,
)


@settings(max_examples=400, deadline=None)
@given(st.lists(_TREES, max_size=4).map("".join))
@example("<list-item>1<label>2</label></list-item>")
def test_any_nesting_of_elements_is_read_and_every_block_leads_back(body: str) -> None:
    payload = article(body)
    document = parse_article(CTX, payload)
    encode_artefact(document)
    assert lost_blocks(document, payload, is_ordered=False) == []


_PROSE = st.recursive(
    st.text(alphabet="abcW ", min_size=1, max_size=6),
    lambda inner: st.tuples(
        st.sampled_from(["p", "sec", "list", "list-item", "bold", "sup", "x", "disp-quote", "boxed-text", "fn", "td"]),
        st.lists(inner, max_size=4),
    ).map(lambda t: f"<{t[0]}>{''.join(t[1])}</{t[0]}>"),
    max_leaves=25,
)


@settings(max_examples=400, deadline=None)
@given(st.lists(_PROSE, max_size=4).map("".join))
def test_no_letter_of_any_body_is_lost(body: str) -> None:
    document = parse_article(CTX, article(body))
    kept = bare("".join(b.text for b in document.blocks()) + "".join("".join(s.path) for s in document.sections))
    source = bare("".join(part.rpartition(">")[2] for part in body.split("<")))
    assert kept.count("w") >= source.count("w")


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_a_damaged_article_is_read_or_refused(data: st.DataObject) -> None:
    text = article(f"<sec><title>A</title><p>x &#955; {TABLE}</p></sec>", "<title-group/>").text
    for _ in range(data.draw(st.integers(1, 5))):
        at = data.draw(st.integers(0, len(text)))
        cut = data.draw(st.integers(0, 30))
        text = text[:at] + data.draw(st.text(alphabet="<>&;/\"'=a\x00\ufffe[]!-?", max_size=5)) + text[at + cut :]
    try:
        encode_artefact(parse_article(CTX, RawPayload("files", "PMC1", JATS, text=text)))
    except MedkgError as error:
        assert error.code.startswith("payload_")
