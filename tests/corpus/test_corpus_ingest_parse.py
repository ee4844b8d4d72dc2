"""Real records, from file to document: everything that is there is read, everything bad is refused by name."""

import json
import re
import time
from collections import Counter
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

import pytest
from lxml import etree
from tests.corpus.provenance import bare, lost_blocks

from medkg.contracts.context import StageContext
from medkg.contracts.document import AdapterRequest, Document, RawPayload, RefusedRecord, SectionKind
from medkg.contracts.errors import QualityError
from medkg.contracts.stages import encode_artefact
from medkg.contracts.topology import Checks
from medkg.ingest.files.adapter import FilesAdapter
from medkg.ingest.settings import FilesSettings
from medkg.parse.stage import AutoParser
from medkg.validate.stage import CheckDocument

pytestmark = pytest.mark.corpus

CTX = StageContext("tenant", "document", "job")
PARSER = AutoParser(max_characters=32_000_000)
_WINDOW = 300  # characters of the document in which the next word of the body has to come


async def read(corpus: Path, *paths: str, limit: int = 40) -> tuple[list[RawPayload], list[RefusedRecord]]:
    source = FilesAdapter(FilesSettings(roots=(corpus,)))
    payloads: list[RawPayload] = []
    refused: list[RefusedRecord] = []
    cursor = ""
    while True:
        page = await source.read(AdapterRequest("files", {"paths": [*paths]}, cursor, limit))
        payloads += page.payloads
        refused += page.refused
        cursor = page.next_cursor
        if not cursor:
            return payloads, refused


async def test_every_study_of_the_api_v2_becomes_a_document(corpus: Path) -> None:
    payloads, refused = await read(corpus, "ctg/aact", "ctg/bulk", "ctg/search-pages", limit=7)
    assert refused == []
    assert Counter(Path(p.uri.partition("#")[0]).parent.name for p in payloads) == {
        "aact": 7,
        "bulk": 100,
        "search-pages": 1,
    }
    roles: Counter[str] = Counter()
    for payload in payloads:
        document = PARSER.execute(CTX, payload)
        assert document.identifiers["nct"] == payload.source_id
        assert document.title
        assert lost_blocks(document, payload) == []
        roles.update({block.role for block in document.blocks()})
        _passes(document)
    for role in ("condition", "study_type", "lead_sponsor", "eligibility_criterion", "overall_status", "sex"):
        assert roles[role] == len(payloads), role
    for role in ("intervention", "phase", "primary_outcome", "condition_mesh", "condition_ancestor", "minimum_age"):
        assert roles[role] > len(payloads) * 0.7, role


async def test_eligibility_criteria_of_real_studies_fall_into_their_halves(corpus: Path) -> None:
    payloads, _ = await read(corpus, "ctg/bulk")
    kinds = Counter(
        block.attributes.get("kind", "neither")
        for payload in payloads
        for block in PARSER.execute(CTX, payload).blocks()
        if block.role == "eligibility_criterion"
    )
    print(f"\ncriteria: {dict(kinds)}")
    assert kinds["neither"] < 0.05 * kinds.total()
    assert min(kinds["inclusion"], kinds["exclusion"]) > 0.3 * kinds.total()


async def test_every_jats_article_becomes_a_document_with_every_word_of_its_body_in_order(corpus: Path) -> None:
    payloads, refused = await read(corpus, "jats")
    assert refused == []
    assert len(payloads) == len({p.source_id for p in payloads}) == sum(1 for f in (corpus / "jats").rglob("*.*ml"))
    recalls = {}
    for payload in payloads:
        document = PARSER.execute(CTX, payload)
        assert document.title
        assert document.metadata["year"]
        assert document.identifiers
        assert lost_blocks(document, payload) == []
        recalls[payload.source_id] = _recall(payload, document)
        _passes(document)
    worst = min(recalls, key=lambda name: recalls[name])
    mean = sum(recalls.values()) / len(recalls)
    print(
        f"\nbody words found in order, {len(recalls)} articles: mean {mean:.5f}, worst {recalls[worst]:.5f} ({worst})"
    )
    assert recalls[worst] >= 0.99


async def test_retractions_among_real_articles_are_known_as_such(corpus: Path) -> None:
    payloads, _ = await read(corpus, "jats")
    found = {p.source_id for p in payloads if PARSER.execute(CTX, p).metadata["retracted"] is True}
    assert found == {"10.1371/journal.ppat.1005207"}


async def test_the_same_record_gives_the_same_bytes(corpus: Path) -> None:
    payloads, _ = await read(corpus, "ctg/aact", "jats/pmc")
    for payload in payloads:
        again = AutoParser(max_characters=32_000_000).execute(CTX, payload)
        assert encode_artefact(PARSER.execute(CTX, payload)) == encode_artefact(again)


async def test_records_of_the_retired_api_are_refused_with_what_to_do(corpus: Path) -> None:
    payloads, refused = await read(corpus, "ctg/legacy-v1")
    assert payloads == []
    assert len(refused) == 2
    assert all("retired" in r.message and "API v2" in r.message for r in refused)


async def test_every_bad_file_is_refused_by_name_in_bounded_time(corpus: Path) -> None:
    begun = time.perf_counter()
    payloads, refused = await read(corpus, "bad", limit=200)
    seconds = time.perf_counter() - begun
    # A list of addresses in plain text is text; that nothing is fetched from it is another promise.
    assert [p.source_id for p in payloads] == ["corpus/bad/ssrf/patt_ssrf_urls.txt"]
    files = {record.uri.partition("#")[0] for record in refused}
    bad = {str(f) for f in (corpus / "bad").rglob("*") if f.is_file() and f.suffix != ".txt"}
    # An empty array is no fault: a search that finds nothing looks like that.
    assert {Path(name).name for name in bad - files} == {"y_structure_whitespace_array.json"}
    assert {r.code for r in refused} <= {"payload_malformed", "payload_unsupported", "payload_too_large"}
    assert all(Path(r.uri.partition("#")[0]).name in r.message for r in refused)
    print(f"\n{len(refused)} refusals of {len(bad)} bad files in {seconds:.2f} s")
    assert seconds < 10


async def test_a_folder_of_pdfs_is_refused_file_by_file(corpus: Path) -> None:
    payloads, refused = await read(corpus, "pdf")
    assert payloads == []
    assert len(refused) == sum(1 for f in (corpus / "pdf").rglob("*") if f.is_file())


async def test_naughty_strings_in_every_field_are_carried_through(corpus: Path) -> None:
    (study,), _ = await read(corpus, "ctg/search-pages")
    for naughty in json.loads((corpus / "bad/blns/blns.json").read_text()):
        record = json.loads(study.text)
        protocol = record["protocolSection"]
        protocol["identificationModule"]["briefTitle"] = naughty
        protocol["descriptionModule"]["briefSummary"] = naughty
        protocol["conditionsModule"]["conditions"] = [naughty]
        payload = RawPayload("files", study.source_id, study.media_type, text=json.dumps(record))
        document = PARSER.execute(CTX, payload)
        assert lost_blocks(document, payload) == []
        encode_artefact(document)


def _passes(document: Document) -> None:
    try:
        CheckDocument(Checks()).execute(CTX, document)
    except QualityError as error:  # pragma: no cover - says which record
        pytest.fail(error.message)


def _recall(payload: RawPayload, document: Document) -> float:
    """The share of the body's words that come in the document in the same order."""
    text, at, found, total = _body_text(document), 0, 0, 0
    for word in _body_words(payload.text):
        total += 1
        place = text.find(word, at, at + _WINDOW)
        if place >= 0:
            found += 1
            at = place + len(word)
    return found / total if total else 1.0


def _body_words(xml: str) -> Iterator[str]:
    parser = etree.XMLParser(encoding="utf-8", resolve_entities=False, remove_comments=True, remove_pis=True)
    root = etree.fromstring(xml.encode(), parser)
    for body in root.iter("body"):
        etree.strip_elements(body, "object-id", with_tail=False)  # names of parts, shown nowhere
        for text in body.itertext():
            for word in re.findall(r"[^\W_]+", str(text)):
                yield word.casefold()


def _body_text(document: Document) -> str:
    parts: list[str] = []
    before: tuple[str, ...] = ()
    for section in document.sections:
        if section.kind is SectionKind.BODY:
            shared = len(list(takewhile(lambda pair: pair[0] == pair[1], zip(section.path, before, strict=False))))
            parts += section.path[shared:]
            parts += [block.text for block in section.blocks]
            before = section.path
    return bare(" ".join(parts))
