"""A retry after a long wait is spent at the gate-router, and the document goes on as if nothing had been."""

from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.fixtures_fleet import StartFleet

from medkg.contracts.context import StageContext
from medkg.contracts.errors import SourceRateLimitedError
from medkg.contracts.implementation import StageImplementation
from medkg.contracts.stages import StageType
from medkg.runtime import service as service_module
from medkg.runtime.registry import installed

SAMPLES = Path(__file__).resolve().parents[2] / "samples"


class Once:
    """A stage that is told to come back later, the first time that it meets a document."""

    def __init__(self, stage: Any, met: set[str]) -> None:
        self._stage = stage
        self._met = met

    async def execute(self, ctx: StageContext, value: Any) -> Any:
        if ctx.doc_id not in self._met:
            self._met.add(ctx.doc_id)
            raise SourceRateLimitedError("asking a peer: 429", retry_after_seconds=1.5)
        return self._stage.execute(ctx, value)


@pytest.fixture
def met(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Puts such a stage in the place of chunk; the documents that it has met."""
    seen: set[str] = set()

    def told(kind: StageType) -> dict[str, StageImplementation]:
        found = installed(kind)
        if kind is not StageType.CHUNK:
            return found

        def wrapped(made: StageImplementation) -> StageImplementation:
            @asynccontextmanager
            async def opened(options: Any, host: Any) -> Any:
                async with made.open(options, host) as stage:
                    yield Once(stage, seen)

            return replace(made, open=opened)

        return {name: wrapped(made) for name, made in found.items()}

    monkeypatch.setattr(service_module, "installed", told)
    return seen


async def test_a_parked_retry_comes_back_and_the_document_ends_well(start_fleet: StartFleet, met: set[str]) -> None:
    async with start_fleet(park_retry_seconds=0.5) as fleet:
        job = await fleet.ended(await fleet.submit({"paths": [str(SAMPLES / "articles")]}))
        documents = await fleet.rows("SELECT state, retry_count_per_stage::text AS retries FROM documents")
        waits = await fleet.rows("SELECT state FROM waits WHERE kind = 'retry'")
    assert job.state == "completed"
    assert len(met) == len(documents) > 0
    assert {row.state for row in documents} == {"completed"}
    assert {row.retries for row in documents} == {'{"chunk": 1}'}  # tried again once
    assert [row.state for row in waits] == ["released"] * len(met)
