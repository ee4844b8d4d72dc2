"""Two replicas of a stage that computes, against one."""

from typing import Any

from medkg.benchmarks.fleet import FleetPlan, fleet
from medkg.benchmarks.loads import Load, Outcome
from medkg.benchmarks.usage import Place

PARTITIONS = 8  # documents are shared out by partition: with few, one replica would get more than the other
_WARM_UP = 40


async def measure_replicas(place: Place, documents: int, cpu_ms: float) -> dict[str, Any]:
    """The time of a job whose chunk stage uses ``cpu_ms`` of one core a document, with one chunk process and with two.

    ``busiest_share`` is the part of the documents that the busier of the two had: no ratio can be above its inverse.
    """
    one, _ = await _timed(place, documents, cpu_ms, 1)
    two, share = await _timed(place, documents, cpu_ms, 2)
    return {
        "documents": documents,
        "cpu_ms_per_document": cpu_ms,
        "one_replica_seconds": round(one.seconds, 2),
        "two_replicas_seconds": round(two.seconds, 2),
        "busiest_share": round(share, 3),
        "ratio": round(one.seconds / two.seconds, 2),
    }


async def _timed(place: Place, documents: int, cpu_ms: float, replicas: int) -> tuple[Outcome, float]:
    plan = FleetPlan(
        partitions=PARTITIONS,
        replicas={"chunk": replicas},
        uses={"chunk": f"uses: busy, with: {{cpu_ms: {cpu_ms}}}"},
    )
    async with fleet(place, plan) as at_work:
        await at_work.run(Load(_WARM_UP))
        outcome = await at_work.run(Load(documents))
    used = [cpu for name, cpu in outcome.usage.process_cpu_seconds.items() if name.startswith("chunk")]
    return outcome, max(used) / sum(used)
