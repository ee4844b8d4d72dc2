"""A pipeline that names an implementation with a GPU of its own, in a fleet without one."""

from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.fixtures_fleet import StartFleet

from medkg.contracts.errors import GpuNotAvailable
from medkg.contracts.implementation import Options, StageImplementation
from medkg.contracts.stages import StageType
from medkg.runtime import service as service_module
from medkg.runtime.registry import installed
from medkg.storage.ledger_answers import FailureCount
from medkg.storage.ledger_reader import LedgerReader

ROOT = Path(__file__).resolve().parents[2]
SELECTION = {"paths": [str(ROOT / "samples" / "articles")]}


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Installs ``embed.local``, which needs a GPU in its own process, where there is none; who has opened it."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    seen: list[str] = []

    @asynccontextmanager
    async def opens(options: Any, host: Any) -> Any:
        seen.append("embed")
        yield None

    local = StageImplementation(StageType.EMBED, name="local", version="1", options=Options, open=opens, needs_gpu=True)

    def told(kind: StageType) -> dict[str, StageImplementation]:
        return installed(kind) | ({"local": local} if kind is StageType.EMBED else {})

    monkeypatch.setattr(service_module, "installed", told)
    return seen


@pytest.fixture
def topologies(tmp_path: Path) -> Path:
    """The shipped ``auto``, with that implementation in the place of the hashing embedder."""
    folder = tmp_path / "topologies"
    folder.mkdir()
    shipped = ROOT / "topologies"
    (folder / "resilience.yaml").write_text((shipped / "resilience.yaml").read_text())
    (folder / "auto.yaml").write_text((shipped / "auto.yaml").read_text().replace("uses: hashing", "uses: local"))
    return folder


async def test_a_job_whose_stage_has_no_gpu_ends_at_once_and_says_so(
    start_fleet: StartFleet, topologies: Path, opened: list[str]
) -> None:
    async with start_fleet(topologies=topologies) as fleet:
        job_id = await fleet.submit(SELECTION)
        row = await fleet.ended(job_id)
        told = await LedgerReader(fleet.engine).job("default", job_id)
        documents = await fleet.rows("SELECT state, retry_count_per_stage::text AS retries FROM documents")
        runs = await fleet.rows("SELECT attempt, outcome FROM stage_runs WHERE stage = 'embed'")
        assert all(one.worker.is_healthy for one in fleet.at_work)  # a pipeline's fault stops no service
    assert row.state == "completed_with_failures"
    assert told is not None
    assert told.failures == (FailureCount("gpu_unavailable", "embed", len(documents), GpuNotAvailable.remedy),)
    assert {(each.state, each.retries) for each in documents} == {("failed", "{}")}
    assert {(run.attempt, run.outcome) for run in runs} == {(1, 0)}  # one attempt each, and it failed
    assert len(runs) == len(documents) > 0
    assert opened == []
