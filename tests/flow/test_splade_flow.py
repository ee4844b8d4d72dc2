"""Learned term weights through a whole fleet: real SPLADE weights on the CPU, as the topology names it."""

from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.servers.models.splade import splade_folder

from medkg.gateway.app import serving_gateway

SHIPPED = Path(__file__).resolve().parents[2] / "topologies"
TOPOLOGY = """
version: "1.0"
name: expanded
applicable_sources: [files]
stages:
  - {{name: ingest, type: IngestStage}}
  - {{name: parse, type: ParseStage, depends_on: [ingest]}}
  - {{name: chunk, type: ChunkStage, depends_on: [parse]}}
  - name: embed
    type: EmbedStage
    uses: hashing
    with: {{sparse: splade-cpu, splade_queries: {queries}}}
    depends_on: [chunk]
  - {{name: index, type: IndexStage, uses: embedded, depends_on: [embed]}}
"""
NOTES = {
    "aspirin": "Aspirin after a heart attack\n\nAspirin lowers the risk of another myocardial infarction.",
    "insulin": "Insulin\n\nInsulin is given to adults whose diabetes is not controlled by tablets.",
}


@pytest.mark.timeout(180)
@pytest.mark.parametrize("broker", ["in-process"], indirect=True)
@pytest.mark.parametrize("queries", ["expanded", "words"])
async def test_passages_are_expanded_by_the_fleet_and_questions_by_the_gateway_with_the_same_model(
    start_fleet: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, queries: str
) -> None:
    folder = splade_folder()
    topologies, records = tmp_path / "topologies", tmp_path / "records"
    topologies.mkdir()
    records.mkdir()
    (topologies / "resilience.yaml").write_text((SHIPPED / "resilience.yaml").read_text())
    (topologies / "expanded.yaml").write_text(TOPOLOGY.format(queries=queries))
    for name, text in NOTES.items():
        (records / f"{name}.txt").write_text(text)
    monkeypatch.setenv("MEDKG_EMBED_SPLADE_FOLDER", str(folder))
    asked: dict[str, str | bool] = {"q": "heart attack", "leg": "sparse", "by_document": True}
    async with start_fleet(topologies=topologies) as fleet:
        job = await fleet.ended(await fleet.submit({"paths": [str(records)]}, pipeline="expanded"))
        assert (job.state, job.completed) == ("completed", 2)
        async with serving_gateway(fleet.host, port=0) as url, httpx.AsyncClient(base_url=url) as client:
            without = (await client.get("/v1/search", params=asked)).json()
        assert (without["hits"], without["legs_missing"]) == ([], ["sparse"])
        assert "no expander for the index's term weights splade" in without["missing"]["sparse"]
        monkeypatch.setenv("MEDKG_SEARCH_SPLADE_FOLDER", str(folder))
        monkeypatch.setenv("MEDKG_SEARCH_SPLADE_QUERIES", queries)
        async with serving_gateway(fleet.host, port=0) as url, httpx.AsyncClient(base_url=url) as client:
            found = (await client.get("/v1/search", params=asked)).json()
        assert found["legs_missing"] == []
        assert Path(found["hits"][0]["source_id"]).stem == "aspirin"
