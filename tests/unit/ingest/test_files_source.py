"""The source ``files``: everything is read once, in pages of any size, and what cannot be read is refused alone."""

import base64
import codecs
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medkg.contracts.document import AdapterRequest, IngestPage, RawPayload
from medkg.contracts.errors import ContractError, MedkgError, SourceForbiddenError
from medkg.contracts.media import CTG_STUDY, JATS, MARKDOWN, TEXT
from medkg.ingest.files import records as records_module
from medkg.ingest.files.adapter import FilesAdapter
from medkg.ingest.settings import FilesSettings

ARTICLE = (
    '<?xml version="1.0"?><!DOCTYPE article PUBLIC "-//NLM//DTD JATS//EN" "http://nowhere.invalid/x.dtd">'
    "<article><front><article-meta>{ids}</article-meta></front><body><p>Text.</p></body></article>"
)


def study(number: int, **more: Any) -> dict[str, Any]:
    return {"protocolSection": {"identificationModule": {"nctId": f"NCT{number:08d}", "briefTitle": "T"}}, **more}


def adapter(root: Path, **more: Any) -> FilesAdapter:
    return FilesAdapter(FilesSettings(roots=(root,), **more))


async def page(source: FilesAdapter, *paths: str, cursor: str = "", limit: int = 100) -> IngestPage:
    return await source.read(AdapterRequest("files", {"paths": [*paths]}, cursor, limit))


async def everything(source: FilesAdapter, *paths: str, limit: int = 100) -> list[IngestPage]:
    pages = [await page(source, *paths, limit=limit)]
    while pages[-1].next_cursor:
        assert len(pages) < 500, "the pages do not come to an end"
        pages.append(await page(source, *paths, cursor=pages[-1].next_cursor, limit=limit))
    return pages


def ids(pages: list[IngestPage]) -> list[str]:
    return [payload.source_id for p in pages for payload in p.payloads]


def faults(pages: list[IngestPage]) -> list[tuple[str, str]]:
    return [(record.source_id, record.code) for p in pages for record in p.refused]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    (folder / "set").mkdir(parents=True)
    (folder / "set/many.json").write_text(json.dumps([study(n) for n in range(1, 8)], indent=1))
    (folder / "set/one.json").write_text(json.dumps(study(50)))
    (folder / "set/page.json").write_text(json.dumps({"studies": [study(60), study(61)], "nextPageToken": "t"}))
    (folder / "set/a.xml").write_text(ARTICLE.format(ids='<article-id pub-id-type="pmc">123</article-id>'))
    (folder / "set/notes.md").write_text("# Notes\n\ntext")
    return folder


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 100])
async def test_pages_of_any_size_hold_every_record_once_and_in_order(root: Path, limit: int) -> None:
    pages = await everything(adapter(root), "set", limit=limit)
    many = [f"NCT{n:08d}" for n in range(1, 8)]
    assert ids(pages) == ["PMC123", *many, "data/set/notes.md", "NCT00000050", "NCT00000060", "NCT00000061"]
    assert all(1 <= len(p.payloads) <= limit for p in pages), "an empty last page would be a message for nothing"
    assert faults(pages) == []


async def test_a_record_is_the_text_of_its_file_with_its_place(root: Path) -> None:
    (only,) = await everything(adapter(root), "set/many.json")
    payload = only.payloads[2]
    assert json.loads(payload.text) == study(3)
    assert payload.media_type == CTG_STUDY
    assert payload.uri == f"{root}/set/many.json#/2"
    (only,) = await everything(adapter(root), "set/page.json")
    assert only.payloads[1].uri == f"{root}/set/page.json#/studies/1"


async def test_the_same_request_gives_the_same_page(root: Path) -> None:
    first = await everything(adapter(root), "set", limit=2)
    assert await everything(adapter(root), "set", limit=2) == first


async def test_a_page_ends_before_it_outgrows_its_bytes(root: Path) -> None:
    (root / "big.json").write_text(json.dumps([study(n, pad="x" * 1_500) for n in range(6)]))
    pages = await everything(adapter(root, max_page_bytes=4_000), "big.json")
    assert [len(p.payloads) for p in pages] == [2, 2, 2]


async def test_a_page_far_into_an_array_does_not_read_what_lies_before_it(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "huge.json").write_text(json.dumps([study(n, pad="x" * 10_000) for n in range(400)]))
    size = (root / "huge.json").stat().st_size
    source = adapter(root)
    pages = await everything(source, "huge.json", limit=100)
    fetched: list[int] = []
    original = records_module.open_file

    def counting(path: Path) -> Any:
        file = original(path)
        read = file.read

        class Counted:
            def __enter__(self) -> "Counted":
                return self

            def __exit__(self, *rest: object) -> None:
                file.close()

            def seek(self, *where: int) -> int:
                return file.seek(*where)

            def read(self, count: int = -1) -> bytes:
                data = read(count)
                fetched.append(len(data))
                return data

        return Counted()

    monkeypatch.setattr(records_module, "open_file", counting)
    last = await page(source, "huge.json", cursor=pages[2].next_cursor, limit=100)
    assert ids([last])[0] == "NCT00000300"
    assert sum(fetched) < size * 0.4  # the last quarter, the head, and one chunk


async def test_without_roots_every_path_is_refused_with_the_variable_to_set(root: Path) -> None:
    with pytest.raises(SourceForbiddenError, match="MEDKG_INGEST_FILES_ROOTS"):
        await page(FilesAdapter(FilesSettings(roots=())), str(root))


async def test_roots_come_from_the_environment_separated_like_a_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDKG_INGEST_FILES_ROOTS", os.pathsep.join(["/a/x", "", "/b/y"]))
    assert FilesSettings().roots == (Path("/a/x"), Path("/b/y"))
    monkeypatch.setenv("MEDKG_INGEST_FILES_ROOTS", "")
    assert FilesSettings().roots == ()


async def test_a_path_that_is_missing_or_outside_is_refused_and_the_rest_is_read(root: Path) -> None:
    pages = await everything(adapter(root), "nope.json", "/etc/passwd", "set/one.json")
    assert ids(pages) == ["NCT00000050"]
    assert faults(pages) == [("nope.json", "source_gone"), ("/etc/passwd", "source_forbidden")]


BAD = {
    "empty.json": (b"", "payload_malformed", "empty"),
    "blank.xml": (b" \n\t ", "payload_malformed", "empty"),
    "broken.json": (b'{"protocolSection": {', "payload_malformed", "not JSON"),
    "latin.json": (
        b'{"protocolSection": {"identificationModule": {"nctId": "NCT00000001\xff"}}}',
        "payload_malformed",
        "",
    ),
    "surrogate.json": (b'{"a": "\\ud800"}', "payload_malformed", "surrogate"),
    "nan.json": (b'{"a": NaN}', "payload_malformed", "not JSON"),
    "other.json": (b'{"hello": 1}', "payload_unsupported", "API v2"),
    "v1.json": (b'{"FullStudiesResponse": {"FullStudies": []}}', "payload_unsupported", "retired API v1"),
    "nameless.json": (
        b'{"protocolSection": {"identificationModule": {"nctId": "X1"}}}',
        "payload_malformed",
        "NCT number",
    ),
    "deep.json": (b'{"a":' * 90_000 + b"1" + b"}" * 90_000, "payload_too_large", "nested"),
    "deep.xml": (b"<article><body>" + b"<p>" * 5_000, "payload_too_large", "nested"),
    "v1.xml": (b"<clinical_study><id_info/></clinical_study>", "payload_unsupported", "retired"),
    "docbook.xml": (b"<article><title>x</title><para>y</para></article>", "payload_unsupported", "no JATS article"),
    "html.xml": (b"<!DOCTYPE html><html><body>x</body></html>", "payload_unsupported", "HTML"),
    "open.xml": (b"<article><front></article>", "payload_malformed", "line 1"),
    "encoding.xml": (b'<?xml version="1.0" encoding="ebcdic-cp-us"?><article/>', "payload_unsupported", "encoding"),
    "bytes.xml": (b"<article><body>\xff</body></article>", "payload_malformed", "byte 15"),
    "bomb.xml": (
        b'<!DOCTYPE article [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]><article><body>&b;</body></article>',
        "payload_unsupported",
        "entity",
    ),
    "file.xml": (
        b'<!DOCTYPE article [<!ENTITY f SYSTEM "file:///etc/passwd">]><article><body>&f;</body></article>',
        "payload_unsupported",
        "entity",
    ),
    "text.json": (b"hello", "payload_malformed", "begins with 'h'"),
    "rubbish": (bytes(range(256)) * 4, "payload_unsupported", "binary"),
    "nul.txt": (b"abc\x00def", "payload_unsupported", "binary"),
    "cp.txt": (b"\x81\x8d\x8f abc", "payload_unsupported", "binary"),
    "half.txt": (codecs.BOM_UTF16_LE + b"a", "payload_malformed", "utf-16"),
    "paper.pdf": (b"%PDF-1.7 ...", "payload_unsupported", "PDF"),
    "table.csv": (b"a,b\n1,2\n", "payload_unsupported", "'.csv'"),
    "packed.json": (b"\x1f\x8b\x08\x00", "payload_unsupported", "gzip"),
}


@pytest.mark.parametrize("name", BAD)
async def test_a_file_that_cannot_be_read_is_refused_by_name_and_the_rest_is_read(root: Path, name: str) -> None:
    data, code, words = BAD[name]
    (root / name).write_bytes(data)
    pages = await everything(adapter(root), name, "set/one.json")
    assert ids(pages) == ["NCT00000050"]
    assert faults(pages) == [(f"data/{name}", code)]
    message = pages[0].refused[0].message
    assert words in message
    assert name in message


async def test_a_bad_element_of_an_array_is_refused_by_its_place_and_the_rest_is_read(root: Path) -> None:
    bad = [b'{"a" 1}', b"17", b'{"Study": {}}', json.dumps(study(2, pad="x" * 5_000)).encode()]
    good = [json.dumps(study(n)).encode() for n in (1, 3)]
    (root / "mixed.json").write_bytes(b"[" + b", ".join([good[0], *bad, good[1]]) + b"]")
    pages = await everything(adapter(root, max_record_bytes=2_000), "mixed.json", limit=2)
    assert ids(pages) == ["NCT00000001", "NCT00000003"]
    assert faults(pages) == [
        ("data/mixed.json#/1", "payload_malformed"),
        ("data/mixed.json#/2", "payload_unsupported"),
        ("data/mixed.json#/3", "payload_unsupported"),
        ("data/mixed.json#/4", "payload_too_large"),
    ]


async def test_of_a_truncated_array_everything_before_the_break_is_read_and_the_place_is_named(root: Path) -> None:
    data = (root / "set/many.json").read_bytes()
    (root / "cut.json").write_bytes(data[: data.index(b"NCT00000005")])
    pages = await everything(adapter(root), "cut.json", limit=3)
    assert ids(pages) == [f"NCT{n:08d}" for n in range(1, 5)]
    assert faults(pages) == [("data/cut.json#/4", "payload_malformed")]
    assert "at byte" in pages[-1].refused[0].message


async def test_an_empty_array_has_no_records_and_no_faults(root: Path) -> None:
    (root / "none.json").write_text("[ ]")
    (root / "nothing.json").write_text('{"totalCount": 0, "studies": []}')
    assert await everything(adapter(root), "none.json", "nothing.json") == [IngestPage(payloads=())]


@pytest.mark.parametrize(
    ("given_ids", "expected"),
    [
        ('<article-id pub-id-type="pmc">PMC77</article-id><article-id pub-id-type="doi">10.1/A</article-id>', "PMC77"),
        ('<article-id pub-id-type="pmcid">PMC78</article-id>', "PMC78"),
        ('<article-id pub-id-type="doi">10.1371/Journal.X</article-id>', "10.1371/journal.x"),
        ('<article-id pub-id-type="pmid">991</article-id>', "pmid:991"),
        ('<article-id pub-id-type="doi">not a doi</article-id>', "data/x.nxml"),
        ('<related-article><article-id pub-id-type="pmc">5</article-id></related-article>', "data/x.nxml"),
        ("", "data/x.nxml"),
    ],
)
async def test_an_article_is_known_by_its_best_identifier_else_by_its_path(
    root: Path, given_ids: str, expected: str
) -> None:
    (root / "x.nxml").write_text(ARTICLE.format(ids=given_ids))
    (only,) = await everything(adapter(root), "x.nxml")
    assert ids([only]) == [expected]
    assert only.payloads[0].media_type == JATS


@pytest.mark.parametrize(
    ("data", "text", "metadata"),
    [
        ("Grüße".encode(), "Grüße", {}),
        (codecs.BOM_UTF8 + "Grüße".encode(), "Grüße", {}),
        (codecs.BOM_UTF16_LE + "Grüße".encode("utf-16-le"), "Grüße", {}),
        (codecs.BOM_UTF32_BE + "Grüße".encode("utf-32-be"), "Grüße", {}),
        ("Grüße “x”".encode("windows-1252"), "Grüße “x”", {"encoding": "windows-1252"}),
    ],
)
async def test_text_is_read_by_its_mark_else_as_utf8_else_as_windows_1252(
    root: Path, data: bytes, text: str, metadata: dict[str, str]
) -> None:
    (root / "t.txt").write_bytes(data)
    (only,) = await everything(adapter(root), "t.txt")
    assert only.payloads == (
        RawPayload("files", "data/t.txt", TEXT, text=text, uri=f"{root}/t.txt", metadata=dict(metadata)),
    )


async def test_xml_is_read_in_the_encoding_it_declares(root: Path) -> None:
    (root / "l.xml").write_bytes(
        '<?xml version="1.0" encoding="ISO-8859-1"?><article><body><p>é</p></body></article>'.encode("latin-1")
    )
    (root / "u.xml").write_bytes(
        codecs.BOM_UTF16_BE + '<?xml version="1.0"?><article><body><p>é</p></body></article>'.encode("utf-16-be")
    )
    pages = await everything(adapter(root), "l.xml", "u.xml")
    assert ["é" in p.text for p in pages[0].payloads] == [True, True]


async def test_a_name_without_an_ending_is_told_by_its_content(root: Path) -> None:
    (root / "README").write_text("plain words")
    (root / "study").write_text(json.dumps(study(9)))
    (root / "set/notes.md").rename(root / "notes.MD")
    (only,) = await everything(adapter(root), "README", "study", "notes.MD")
    assert [p.media_type for p in only.payloads] == [TEXT, CTG_STUDY, MARKDOWN]


@pytest.mark.timeout(20)
async def test_a_named_pipe_is_refused_at_once(root: Path) -> None:
    os.mkfifo(root / "pipe.json")
    pages = await everything(adapter(root), "pipe.json", "set")
    assert faults(pages) == [("pipe.json", "source_gone")]
    os.mkfifo(root / "set/pipe.json")
    assert faults(await everything(adapter(root), "set")) == [("data/set/pipe.json", "source_forbidden")]


async def test_a_file_too_large_for_one_record_is_refused_with_the_setting(root: Path) -> None:
    (root / "long.txt").write_text("x" * 5_000)
    pages = await everything(adapter(root, max_record_bytes=2_000), "long.txt")
    assert faults(pages) == [("data/long.txt", "payload_too_large")]
    assert "MEDKG_INGEST_FILES_MAX_RECORD_BYTES" in pages[0].refused[0].message


@pytest.mark.parametrize("change", ["grown", "rewritten", "gone"])
async def test_a_file_that_changes_between_two_pages_is_refused_from_there_on(root: Path, change: str) -> None:
    source = adapter(root)
    first = await page(source, "set/many.json", "set/one.json", limit=3)
    path = root / "set/many.json"
    if change == "grown":
        path.write_text(path.read_text() + " ")
    elif change == "rewritten":
        path.write_text(path.read_text().replace("NCT00000003", "NCT00000999"))
    else:
        path.unlink()
    rest = await page(source, "set/many.json", "set/one.json", cursor=first.next_cursor)
    assert ids([rest]) == ["NCT00000050"]
    assert [record.code for record in rest.refused] == ["source_gone"]


async def test_a_file_of_a_folder_that_goes_between_two_pages_is_refused_from_there_on(root: Path) -> None:
    source = adapter(root)
    first = await page(source, "set", limit=3)
    (root / "set/many.json").unlink()
    rest = await page(source, "set", cursor=first.next_cursor)
    assert ids([rest]) == ["data/set/notes.md", "NCT00000050", "NCT00000060", "NCT00000061"]
    assert [(record.source_id, record.code) for record in rest.refused] == [("set/many.json#/2", "source_gone")]
    for file in (root / "set").iterdir():
        file.unlink()
    nothing = await page(source, "set", cursor=first.next_cursor)
    assert [record.code for record in nothing.refused] == ["source_gone"]


def forge(cursor: str, **changes: Any) -> str:
    fields = json.loads(base64.urlsafe_b64decode(cursor))
    return base64.urlsafe_b64encode(json.dumps({**fields, **changes}).encode()).decode()


@pytest.mark.parametrize(
    "changes",
    [
        {"item": 99},
        {"item": -1},
        {"offset": -2},
        {"offset": "1"},
        {"names": [".."] * 1000},
        {"names": ["\u4e00"]},
        {"selection": "0" * 16},
        {"extra": 1},
        {"index": -5},
    ],
)
async def test_a_cursor_that_nobody_gave_out_is_refused(root: Path, changes: dict[str, Any]) -> None:
    source = adapter(root)
    first = await page(source, "set", limit=3)
    with pytest.raises(ContractError, match="cursor"):
        await page(source, "set", cursor=forge(first.next_cursor, **changes))


@pytest.mark.parametrize("names", [["..", "..", "secret.txt"], ["/etc/passwd"], ["set", "many.json"], ["\x00"], [""]])
async def test_no_cursor_leads_out_of_the_selection(root: Path, names: list[str]) -> None:
    (root.parent / "secret.txt").write_text("secret")
    source = adapter(root)
    first = await page(source, "set", limit=3)
    for offset in (0, 7, 10**15):
        answer = await page(source, "set", cursor=forge(first.next_cursor, names=names, offset=offset))
        assert not any("secret" in payload.text for payload in answer.payloads)
        assert all(payload.uri.startswith(f"{root}/set/") for payload in answer.payloads)


async def test_an_offset_that_nobody_gave_out_is_not_read_from(root: Path) -> None:
    source = adapter(root)
    first = await page(source, "set/many.json", limit=3)
    answer = await page(source, "set/many.json", cursor=forge(first.next_cursor, offset=40, index=0))
    assert answer.payloads == ()
    assert [record.code for record in answer.refused] == ["source_gone"]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cursor=st.text(max_size=60) | st.binary(max_size=60).map(lambda b: base64.urlsafe_b64encode(b).decode()))
async def test_any_word_as_a_cursor_is_refused_as_such(root: Path, cursor: str) -> None:
    if cursor:
        with pytest.raises(ContractError):
            await page(adapter(root), "set", cursor=cursor)


@pytest.mark.parametrize(
    "selection", [{}, {"paths": []}, {"paths": ["a\x00b"]}, {"paths": "a"}, {"paths": ["a"], "x": 1}]
)
async def test_a_selection_that_breaks_its_model_is_refused(root: Path, selection: dict[str, object]) -> None:
    with pytest.raises(ContractError, match=r"/paths|/x"):
        await adapter(root).read(AdapterRequest("files", selection))


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(["f.json", "f.xml", "f.txt", "f"]),
    start=st.sampled_from([b"", b"[", b"{", b'{"studies":[', b"<article><body>", codecs.BOM_UTF8, codecs.BOM_UTF16_LE]),
    rest=st.binary(max_size=200),
)
async def test_no_content_of_a_file_does_more_than_be_read_or_refused(
    root: Path, name: str, start: bytes, rest: bytes
) -> None:
    (root / name).write_bytes(start + rest)
    try:
        pages = await everything(adapter(root), name)
    except MedkgError as error:  # pragma: no cover - says what came out
        pytest.fail(f"a file's content stopped the page: {error}")
    for record in pages[0].refused:
        assert record.code.startswith("payload_")
