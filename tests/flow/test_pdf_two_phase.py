"""From a DOI to passages that lead to a box on a page: download, gate, PDF parser, and all that comes after."""

import time
from pathlib import Path
from typing import Any

import pytest
from tests.fixtures_fleet import ALL_SERVICES
from tests.flow.test_download_flow import article, environment
from tests.integration.publisher_kit import pdf, serving
from tests.servers.mineru.recordings import PAPERS, recorded_papers
from tests.servers.mineru.server import FakeMineru, Faults

from medkg.mineru.app import SERVICE as MINERU

pytestmark = [pytest.mark.corpus, pytest.mark.postgres]
__all__ = ["environment"]  # the fixture of the download flow
DOIS = ("10.5555/one", "10.5555/two")
QUERY = "?email=library%40clinic.test"


async def test_two_articles_with_one_pdf_are_parsed_once_and_both_searchable(
    start_fleet: Any,
    environment: Any,
    corpus: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    paper = (corpus / "mineru" / PAPERS[0] / "paper.pdf").read_bytes()
    mineru = FakeMineru(recorded_papers(corpus), time.monotonic, seconds=0.5)
    async with serving() as publisher, mineru.serving() as url:
        environment(publisher)
        monkeypatch.setenv("MEDKG_MINERU_URL", url)
        monkeypatch.setenv("MEDKG_MINERU_POLL_SECONDS", "0.1")
        publisher.answers |= {f"/v2/{doi}{QUERY}": article(publisher, doi, "/one.pdf") for doi in DOIS}
        publisher.answers["/one.pdf"] = pdf(paper)
        async with start_fleet((*ALL_SERVICES, MINERU)) as fleet:
            job = await fleet.ended(await fleet.submit({"ids": list(DOIS)}, source="unpaywall"))
            assert (job.state, job.completed) == ("completed", 2)
            async with fleet.search() as search:
                found = await search.search("default", "random separators are competitive baselines", limit=10)
            documents = await fleet.rows("SELECT * FROM documents")
            again = await fleet.ended(await fleet.submit({"ids": [DOIS[0]]}, source="unpaywall"))
    assert len(mineru.submissions) == 1
    assert {document.pdf_ir_ready for document in documents} == {True}
    assert again.state == "completed"
    hits = [hit for hit in found.hits if hit.title.startswith("Strings from the Library of Babel")]
    assert {hit.doc_id for hit in hits} == {document.doc_id for document in documents}
    assert all(hit.provenance.page and hit.provenance.box for hit in hits)


async def test_a_pdf_that_cannot_be_parsed_fails_its_articles_with_the_parsers_reason(
    start_fleet: Any,
    environment: Any,
    corpus: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    paper = (corpus / "mineru" / PAPERS[0] / "paper.pdf").read_bytes()
    mineru = FakeMineru(recorded_papers(corpus), time.monotonic, faults=Faults(empty_results=100))
    async with serving() as publisher, mineru.serving() as url:
        environment(publisher)
        monkeypatch.setenv("MEDKG_MINERU_URL", url)
        monkeypatch.setenv("MEDKG_MINERU_POLL_SECONDS", "0.1")
        monkeypatch.setenv("MEDKG_MINERU_RESUBMITS", "0")
        publisher.answers |= {f"/v2/{DOIS[0]}{QUERY}": article(publisher, DOIS[0], "/one.pdf"), "/one.pdf": pdf(paper)}
        async with start_fleet((*ALL_SERVICES, MINERU)) as fleet:
            job = await fleet.ended(await fleet.submit({"ids": [DOIS[0]]}, source="unpaywall"))
            (document,) = await fleet.rows("SELECT * FROM documents")
    assert job.state == "completed_with_failures"
    assert document.failure_code == "payload_malformed"
    assert "there is no result" in document.failure_message


async def test_without_mineru_pdfium_reads_the_downloaded_file(
    start_fleet: Any,
    environment: Any,
    corpus: Path,
) -> None:
    good = (corpus / "pdf" / "pmc" / "PMC7808740.pdf").read_bytes()
    scan = (corpus / "pdf" / "nasty" / "scanned_haystack_non_text_searchable.pdf").read_bytes()
    async with serving() as publisher:
        environment(publisher)
        for doi, path, data in ((DOIS[0], "/one.pdf", good), (DOIS[1], "/scan.pdf", scan)):
            publisher.answers |= {f"/v2/{doi}{QUERY}": article(publisher, doi, path), path: pdf(data)}
        async with start_fleet() as fleet:
            job_id = await fleet.submit({"ids": list(DOIS)}, source="unpaywall", pipeline="pdf-local")
            job = await fleet.ended(job_id)
            async with fleet.search() as search:
                found = await search.search("default", "CVD readmission within the first year after dialysis", limit=5)
            documents = {row.source_id: row for row in await fleet.rows("SELECT * FROM documents")}
    assert (job.completed, job.rejected) == (1, 1)
    assert documents[DOIS[1]].failure_code == "needs_ocr"
    assert found.hits
    assert all(hit.provenance.page and hit.provenance.box for hit in found.hits)
