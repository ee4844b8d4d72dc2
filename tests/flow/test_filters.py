"""Every filter of a search, from the records of two sources through a whole fleet to the command line."""

import asyncio
import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from medkg.gateway.app import serving_gateway

SHIPPED = Path(__file__).resolve().parents[2] / "topologies"
WORD = "spirometry"  # in every record
KEY = "0123456789abcdef"

TOPOLOGY = """
version: "1.0"
name: filtered
applicable_sources: [files, clinicaltrials]
stages:
  - {{name: ingest, type: IngestStage}}
  - {{name: parse, type: ParseStage, depends_on: [ingest]}}
  - {{name: chunk, type: ChunkStage, depends_on: [parse]}}
  - {{name: embed, type: EmbedStage, uses: hashing, depends_on: [chunk]}}
  - {{name: index, type: IndexStage, uses: {store}, depends_on: [embed]}}
"""


def study(nct: str, start: str, conditions: list[str], phases: list[str], mesh: str = "") -> dict[str, Any]:
    return {
        "protocolSection": {
            "identificationModule": {"nctId": nct, "briefTitle": f"Trial {nct}"},
            "statusModule": {"startDateStruct": {"date": start}},
            "descriptionModule": {"briefSummary": f"Lung function by {WORD} is compared."},
            "conditionsModule": {"conditions": conditions},
            "designModule": {"phases": phases},
            "eligibilityModule": {"eligibilityCriteria": f"Inclusion Criteria:\n\n* {WORD} can be done"},
        },
        "derivedSection": {"conditionBrowseModule": {"meshes": [{"term": mesh}] if mesh else []}},
    }


STUDIES = [
    study("NCT00000001", "2015-03", ["Asthma", "COPD"], ["PHASE2", "PHASE3"], "Pulmonary Disease, Chronic Obstructive"),
    study("NCT00000002", "2021", ["Migraine"], ["PHASE4"]),
    study("NCT00000003", "2018-01-31", ["Asthma, Exercise-Induced", "50% \\> x' OR 1=1 --"], ["NA"]),
]

ARTICLE = """<article article-type="research-article"><front><article-meta>
<title-group><article-title>Article {name}</article-title></title-group>
<pub-date><year>{year}</year></pub-date>{related}</article-meta></front>
<body><sec><title>Methods</title><p>We measured {word}.</p></sec>
<sec><title>Results</title><sec><title>Lung function</title><p>By {word} nothing changed.</p></sec></sec></body>
</article>
"""
RETRACTED = '<related-article related-article-type="retracted-article" ext-link-type="doi"/>'

SOUND, WITHDRAWN, NOTE = "sound", "withdrawn", "note"
ONE, TWO, THREE = "NCT00000001", "NCT00000002", "NCT00000003"
EVERYTHING = {SOUND, WITHDRAWN, NOTE, ONE, TWO, THREE}

ASKED: list[tuple[dict[str, Any], set[str]]] = [
    ({}, EVERYTHING),
    ({"source": "clinicaltrials"}, {ONE, TWO, THREE}),
    ({"source": ["files", "clinicaltrials"]}, EVERYTHING),
    ({"year_from": 2018}, {TWO, THREE, SOUND}),
    ({"year_from": 2015, "year_to": 2018}, {ONE, THREE}),
    ({"section": "methods"}, {SOUND, WITHDRAWN}),
    ({"section": ["Lung function", "Eligibility"]}, EVERYTHING - {NOTE}),
    ({"condition": "asthma"}, {ONE}),
    ({"condition": "pulmonary disease,  chronic obstructive"}, {ONE}),
    ({"condition": ["Migraine", "copd"]}, {ONE, TWO}),
    ({"condition": "50% > X' OR 1=1 --"}, {THREE}),
    ({"phase": "phase 3"}, {ONE}),
    ({"phase": ["Phase II", "PHASE4"]}, {ONE, TWO}),
    ({"phase": "2/3"}, {ONE}),
    ({"retracted": True}, {WITHDRAWN}),
    ({"retracted": False}, EVERYTHING - {WITHDRAWN}),
    ({"condition": "asthma", "phase": "3", "year_to": 2015, "source": "clinicaltrials"}, {ONE}),
    ({"condition": "asthma", "phase": "phase 4"}, set()),
    *(
        ({name: value}, set[str]())
        for name in ("source", "section", "condition", "phase")
        for value in ("unheard of", "' OR 1=1 --", '{"match_all": {}}', "*", "%", "|", "/", "\u202e\U0001f600")
    ),
]  # fmt: skip


@pytest.fixture
def registry() -> Iterator[str]:
    """A registry with three studies."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps({"studies": STUDIES, "totalCount": len(STUDIES)}).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  as the base class names it
            """Nothing is logged."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(params=["embedded", pytest.param("opensearch", marks=pytest.mark.opensearch)])
def store(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """Which store the pipeline ends in; fleet and gateway are told where it is."""
    if request.param == "opensearch":
        url, prefix = request.getfixturevalue("opensearch"), request.getfixturevalue("opensearch_prefix")
        address = {"kind": "opensearch", "url": url, "prefix": prefix, "data_dir": str(tmp_path / "data")}
        for name, value in {
            "MEDKG_OPENSEARCH_URL": url,
            "MEDKG_OPENSEARCH_PREFIX": prefix,
            "MEDKG_OPENSEARCH_INDEX_KEY": KEY,
            "MEDKG_SEARCH_STORE": json.dumps(address),
        }.items():
            monkeypatch.setenv(name, value)
    return str(request.param)


def folders(tmp_path: Path, store: str) -> tuple[Path, Path]:
    """Records of the source ``files``, and the pipeline."""
    topologies, records = tmp_path / "topologies", tmp_path / "records"
    for folder in (topologies, records):
        folder.mkdir()
    (topologies / "resilience.yaml").write_text((SHIPPED / "resilience.yaml").read_text())
    (topologies / "filtered.yaml").write_text(TOPOLOGY.format(store=store))
    for name, year, related in ((SOUND, 2019, ""), (WITHDRAWN, 2012, RETRACTED)):
        (records / f"{name}.xml").write_text(ARTICLE.format(name=name, year=year, related=related, word=WORD))
    (records / f"{NOTE}.txt").write_text(f"A note\n\nIt says that {WORD} is done.")
    return topologies, records


@pytest.mark.timeout(300)  # a node of OpenSearch may have to be started
@pytest.mark.parametrize("broker", ["in-process"], indirect=True)
async def test_every_filter_finds_the_right_and_only_the_right(
    start_fleet: Any, registry: str, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDKG_INGEST_CLINICALTRIALS_BASE_URL", registry)
    topologies, records = folders(tmp_path, store)
    async with start_fleet(topologies=topologies) as fleet:
        jobs = [
            await fleet.submit({"paths": [str(records)]}, pipeline="filtered"),
            await fleet.submit({"query": WORD}, source="clinicaltrials", pipeline="filtered"),
        ]
        for job in jobs:
            ended = await fleet.ended(job)
            assert (ended.state, ended.completed) == ("completed", 3)
        async with serving_gateway(fleet.host, port=0) as url, httpx.AsyncClient(base_url=url) as client:
            for filters, expected in ASKED:
                answer = await client.get("/v1/search", params={"q": WORD, "limit": 50, **filters})
                assert answer.status_code == 200, (filters, answer.text)
                body = answer.json()
                assert body["legs_missing"] == []
                assert {Path(hit["source_id"]).stem for hit in body["hits"]} == expected, filters
            await same_on_the_command_line(url)


async def same_on_the_command_line(url: str) -> None:
    flags = ["--condition", "asthma", "--phase", "phase 3", "--source", "clinicaltrials", "--section", "Eligibility"]
    flags += ["--year-from", "2015", "--year-to", "2015", "--no-retracted", "--json"]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "medkg.cli", "--gateway", url, "search", WORD, *flags),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    said, complained = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, complained
    assert {hit["source_id"] for hit in json.loads(said)["hits"]} == {ONE}
