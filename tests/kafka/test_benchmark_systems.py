"""What the benchmark measures does what it says: every document comes through every system, and is timed."""

from pathlib import Path

import pytest

from medkg.benchmarks.kafka_peers import MODULES
from medkg.benchmarks.loads import Load
from medkg.benchmarks.measure import opened
from medkg.benchmarks.usage import Place

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(180)]


@pytest.mark.parametrize("name", [*MODULES, "medkg"])
async def test_every_document_comes_through_and_is_timed(
    name: str, kafka: str, database_url: str, tmp_path: Path
) -> None:
    place = Place(kafka, database_url, tmp_path)
    async with opened(name, place, size=200) as system:
        at_once = await system.run(Load(20))
        assert at_once.latencies_ms == ()
        assert at_once.seconds > 0
        assert at_once.usage.cpu_seconds["workers"] >= 0
        assert not {"kafka", "postgresql"} & at_once.usage.cpu_seconds.keys()  # no processes of ours
        assert len(at_once.usage.rss_mib) >= 8

        for load in (Load(10, 50.0), Load(5, 10.0, is_even=True, alone=True)):
            paced = await system.run(load)
            assert len(paced.latencies_ms) == load.documents
            assert all(latency > 0 for latency in paced.latencies_ms)
            assert paced.seconds >= load.arrivals()[-1]
