"""From a DOI to a stored PDF that waits at the gate: ingest, download and gate-router on a broker."""

import json
from typing import Any

import msgspec
import pytest
from tests.integration.publisher_kit import Publisher, page, pdf, raw, redirect, serving

from medkg.contracts.document import StoredFile
from medkg.contracts.messages import REQUEST_DECODER
from medkg.runtime.artefacts import Artefacts

PAPER = b"%PDF-1.7\n" + b"1 0 obj << >> endobj\n" * 2_000 + b"%%EOF\n"


def article(publisher: Publisher, doi: str, *paths: str) -> Any:
    """What Unpaywall says of an article."""
    places = [
        {
            "url": publisher.url(path),
            "url_for_pdf": publisher.url(path),
            "license": "cc-by",
            "version": "publishedVersion",
        }
        for path in paths
    ]
    answer = {"doi": doi, "is_oa": bool(places), "title": f"On {doi}", "year": 2021, "oa_locations": places}
    answer["best_oa_location"] = places[0] if places else None
    body = json.dumps(answer).encode()
    return raw(
        f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body,
        closes=False,
    )


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Any:
    def use(publisher: Publisher) -> None:
        monkeypatch.setenv("MEDKG_INGEST_UNPAYWALL_BASE_URL", publisher.url("/v2"))
        monkeypatch.setenv("MEDKG_INGEST_UNPAYWALL_EMAIL", "library@clinic.test")
        monkeypatch.setenv("MEDKG_DOWNLOAD_ALLOW_LOOPBACK", "true")
        monkeypatch.setenv("MEDKG_DOWNLOAD_PORTS", str(publisher.port))
        monkeypatch.setenv("MEDKG_DOWNLOAD_REQUESTS_PER_SECOND", "50")

    return use


async def test_articles_wait_at_the_gate_with_their_stored_pdf(start_fleet: Any, environment: Any) -> None:
    dois = ["10.5555/one", "10.5555/two", "10.5555/closed", "10.5555/sold"]
    query = "?email=library%40clinic.test"
    async with serving() as publisher:
        environment(publisher)
        publisher.answers |= {
            f"/v2/10.5555/one{query}": article(publisher, dois[0], "/landing", "/one.pdf"),
            f"/v2/10.5555/two{query}": article(publisher, dois[1], "/moved"),
            f"/v2/10.5555/closed{query}": article(publisher, dois[2]),
            f"/v2/10.5555/sold{query}": article(publisher, dois[3], "/sold"),
            "/landing": page("<html><title>An article</title>"),
            "/one.pdf": pdf(PAPER),
            "/moved": redirect("/one.pdf"),
            "/sold": page("<html>Buy this article"),
        }
        async with start_fleet() as fleet:
            job_id = await fleet.submit({"ids": dois}, source="unpaywall")
            where = "WHERE job_id = :job ORDER BY source_id"
            await fleet.until(
                f"SELECT * FROM documents {where}",
                lambda rows: (
                    sum(row.pdf_downloaded for row in rows) == 2 and sum(bool(row.failure_code) for row in rows) == 2
                ),
                "two downloads and two failures",
                job=job_id,
            )
            documents = {row.source_id: row for row in await fleet.rows(f"SELECT * FROM documents {where}", job=job_id)}
            await fleet.until("SELECT * FROM waits WHERE kind = 'gate'", lambda rows: len(rows) == 2, "two parked")
            parked = await fleet.rows("SELECT doc_id, request FROM waits WHERE kind = 'gate'")

        assert {name: (row.state, row.failure_code) for name, row in documents.items() if row.failure_code} == {
            "10.5555/closed": ("rejected", "source_paywall"),  # Unpaywall knows no open copy
            "10.5555/sold": ("failed", "source_paywall"),  # its publisher sells it
        }
        stored, artefacts = {}, Artefacts(fleet.host.blobs, 0)
        for wait in parked:
            request = REQUEST_DECODER.decode(wait.request.encode())
            assert request.metadata["doi"] in {"10.5555/one", "10.5555/two"}
            artefact = request.artefacts["file"]
            stored[request.metadata["doi"]] = msgspec.json.decode(await artefacts.open(artefact), type=StoredFile)
        one, two = stored["10.5555/one"], stored["10.5555/two"]
        assert one.key == two.key
        assert await fleet.host.blobs.get(one.key) == PAPER
        assert [tried.code for tried in one.declined] == ["source_malformed"]
        assert (one.licence, two.uri) == ("cc-by", publisher.url("/one.pdf"))
