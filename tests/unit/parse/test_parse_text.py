"""Text becomes paragraphs, Markdown headings and lists too; every block knows the characters it was made from."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.corpus.provenance import bare, lost_blocks

from medkg.contracts.context import StageContext
from medkg.contracts.document import BlockKind, Document, RawPayload
from medkg.contracts.errors import PayloadMalformedError, PayloadTooLargeError
from medkg.contracts.media import MARKDOWN, TEXT
from medkg.parse.text import parse_text

CTX = StageContext("t", "doc", "job")


def parse(text: str, media: str = TEXT) -> Document:
    payload = RawPayload("files", "a.txt", media, text=text)
    document = parse_text(CTX, payload)
    assert lost_blocks(document, payload) == []
    return document


@pytest.mark.parametrize(
    ("text", "title", "paragraphs"),
    [
        ("A title\n\nFirst\nparagraph.\n\n\nSecond.", "A title", ["First paragraph.", "Second."]),
        ("A sentence.\n\nAnother.", "", ["A sentence.", "Another."]),
        ("第一章\n\n本文。", "第一章", ["本文。"]),
        ("これは文です。\n\n本文。", "", ["これは文です。", "本文。"]),
        ("Only one line", "", ["Only one line"]),
        ("\n\n  Title  \r\n\r\nBody\r\n", "Title", ["Body"]),
        ("x" * 201 + "\n\nBody", "", ["x" * 201, "Body"]),
        ("Title\nnot alone\n\nBody", "", ["Title not alone", "Body"]),
    ],
)
def test_the_first_line_is_the_title_where_it_looks_like_one(text: str, title: str, paragraphs: list[str]) -> None:
    document = parse(text)
    assert (document.title, [b.text for b in document.blocks()]) == (title, paragraphs)


def test_markdown_headings_are_sections_and_items_are_items() -> None:
    document = parse(
        "# The title\n\nIntro\n\n## One ##\n\n- a\n- b\n  goes on\n1. c\n\nText\n### Deep\nd\n\nTwo\n---\n\n"
        "```\n# no heading\n- no item\n```\n\n## Bare\n",
        MARKDOWN,
    )
    assert document.title == "The title"
    assert [(s.path, [b.text for b in s.blocks]) for s in document.sections] == [
        ((), ["Intro"]),
        (("One",), ["a", "b goes on", "c", "Text"]),
        (("One", "Deep"), ["d"]),
        (("Two",), ["``` # no heading - no item ```"]),
        (("Bare",), []),
    ]
    assert [b.kind for b in document.sections[1].blocks] == [*[BlockKind.LIST_ITEM] * 3, BlockKind.PARAGRAPH]


def test_in_plain_text_nothing_is_a_heading() -> None:
    assert [s.path for s in parse("# a\n\nb\n\n# c\n\nd").sections] == [()]


@pytest.mark.parametrize("text", ["", " \n\t\n "])
def test_nothing_but_white_space_is_refused(text: str) -> None:
    with pytest.raises(PayloadMalformedError, match="empty"):
        parse_text(CTX, RawPayload("files", "a.txt", TEXT, text=text))


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "text", ["# x" + " " * 300_000 + "y", "# a" + " #" * 200_000, "- " * 300_000, "=" * 500_000, "a\n" * 400_000]
)
def test_no_shape_of_a_text_takes_long(text: str) -> None:
    parse_text(CTX, RawPayload("files", "a.md", MARKDOWN, text=text))


def test_too_many_lines_are_refused() -> None:
    with pytest.raises(PayloadTooLargeError, match="lines"):
        parse_text(CTX, RawPayload("files", "a.md", TEXT, text="a" + "\n" * 1_100_000))


@given(text=st.text(alphabet="aB \n\r\t#-*1.=`~\u2028é漢", max_size=120), media=st.sampled_from([TEXT, MARKDOWN]))
def test_no_letter_of_any_text_is_lost_and_every_block_leads_back(text: str, media: str) -> None:
    if not text.strip():
        return
    document = parse(text, media)
    kept = (
        document.title
        + "".join(b.text for b in document.blocks())
        + "".join("".join(s.path) for s in document.sections)
    )
    assert bare(kept).count("漢") >= (text.count("漢") if media == TEXT else min(1, text.count("漢")))
