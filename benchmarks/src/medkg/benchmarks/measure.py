"""What is measured of every system: the greatest throughput, then latencies at loads below it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from medkg.benchmarks.dagster_peer import dagster_peer
from medkg.benchmarks.fleet import FleetPlan, fleet
from medkg.benchmarks.kafka_peers import HOPS, MODULES, kafka_peer
from medkg.benchmarks.loads import Load, Outcome, percentiles
from medkg.benchmarks.usage import Place

SYSTEMS = ("medkg", *MODULES, "dagster")
_WARM_UP = 50
_MOST_PACED = 20_000
_FEWEST_PACED = 20
_IDLE_PER_SECOND = 4.0  # 250 ms apart, and less where a document takes long
_IDLE_DOCUMENTS = 60
_FIXED_PER_SECOND = 100.0
_HEADROOM = 1.25  # a fixed rate is measured where the maximum is so much above it


@dataclass(frozen=True, slots=True)
class Asked:
    """How much is measured. ``paced_seconds`` is the length of each open-loop load; ``repeats`` of the throughput."""

    documents: int = 20_000
    size: int = 1_900
    slow_documents: int = 20
    paced_seconds: float = 15.0
    repeats: int = 1
    with_latency: bool = True


class System(Protocol):
    """Something that takes documents through eight hops."""

    async def run(self, load: Load) -> Outcome: ...


@asynccontextmanager
async def opened(name: str, place: Place, size: int) -> AsyncIterator[System]:
    """A system of :data:`SYSTEMS`, ready to take loads."""
    if name == "medkg":
        async with fleet(place, FleetPlan(size=size)) as at_work:
            yield at_work
    elif name == "dagster":
        async with dagster_peer(place, size) as peer:
            yield peer
    else:
        async with kafka_peer(name, place, size) as at_work_too:
            yield at_work_too


async def measure_system(name: str, asked: Asked, place: Place) -> dict[str, Any]:
    """All figures of one system; of several repeats of the throughput the median one is kept, with all rates."""
    is_slow = name == "dagster"
    documents = min(asked.documents, asked.slow_documents) if is_slow else asked.documents
    async with opened(name, place, asked.size) as system:
        if not is_slow:  # it warms up by itself, in every process
            await system.run(Load(_WARM_UP))
        outcomes = [await system.run(Load(documents)) for _ in range(asked.repeats)]
        outcomes.sort(key=lambda outcome: outcome.seconds)
        figures = _throughput(documents, outcomes[len(outcomes) // 2])
        figures["all_documents_per_second"] = [round(documents / outcome.seconds, 2) for outcome in outcomes]
        figures["is_extrapolated"] = documents < asked.documents
        if asked.with_latency:
            greatest = documents / outcomes[len(outcomes) // 2].seconds
            latencies: dict[str, Any] = {}
            for label, load in _paced(greatest, asked, is_slow=is_slow).items():
                print(f"  {name}, {label}: {load.documents} documents, {load.per_second:.1f}/s", flush=True)
                latencies[label] = _latency(load, await system.run(load))
            figures["latency_ms"] = latencies
    return figures


def _paced(greatest: float, asked: Asked, *, is_slow: bool) -> dict[str, Load]:
    """The open-loop loads of a system that can do ``greatest`` documents a second."""

    def load(per_second: float) -> Load:
        documents = round(per_second * asked.paced_seconds)
        most = asked.slow_documents if is_slow else _MOST_PACED
        return Load(max(min(documents, most), min(_FEWEST_PACED, most)), per_second)

    idle = asked.slow_documents if is_slow else _IDLE_DOCUMENTS
    loads = {"idle": Load(idle, min(_IDLE_PER_SECOND, 0.2 * greatest), is_even=True, alone=True)}
    if greatest >= _HEADROOM * _FIXED_PER_SECOND:
        fixed = load(_FIXED_PER_SECOND)
        loads["100/s"] = Load(fixed.documents, fixed.per_second, alone=True)
    return loads | {"30 %": load(0.3 * greatest), "80 %": load(0.8 * greatest)}


def _throughput(documents: int, outcome: Outcome) -> dict[str, Any]:
    usage = outcome.usage
    return {
        "documents": documents,
        "seconds": round(outcome.seconds, 3),
        "documents_per_second": round(documents / outcome.seconds, 2),
        "cpu_seconds_per_1000": {name: round(1_000 * used / documents, 3) for name, used in usage.cpu_seconds.items()},
        "worker_cpu_us_per_hop": round(usage.cpu_seconds["workers"] / documents / HOPS * 1e6, 1),
        "process_cpu_us_per_document": {
            name: round(used / documents * 1e6, 1) for name, used in usage.process_cpu_seconds.items()
        },
        "rss_mib": usage.rss_mib,
    }


def _latency(load: Load, outcome: Outcome) -> dict[str, Any]:
    figures: dict[str, Any] = {"documents": load.documents, "per_second": round(load.per_second, 1)}
    figures |= percentiles(outcome.latencies_ms)
    if outcome.hops_ms:
        figures["hops"] = percentiles(outcome.hops_ms)
    return figures
