"""Two replicas of a stage that computes, against one."""

from dataclasses import dataclass
from typing import Any

from medkg.benchmarks.fleet import Fleet, FleetPlan, fleet
from medkg.benchmarks.loads import Load, Outcome
from medkg.benchmarks.usage import Place

PARTITIONS = 8  # documents are shared out by partition: with few, one replica would get more than the other
_WARM_UP = 40


# From the beginning of the first run of the stage to the end of its last one, in the job that was admitted last.
_AT_WORK = """
SELECT extract(epoch FROM max(finished_at) - min(finished_at - duration_us * interval '1 microsecond'))
FROM stage_runs
WHERE stage = 'chunk' AND job_id = (SELECT job_id FROM jobs ORDER BY admitted_at DESC NULLS LAST LIMIT 1)
"""


@dataclass(frozen=True, slots=True)
class _Timed:
    """``at_work_seconds`` is the part of the job's time in which the stage was at work: no admission, no ramp."""

    outcome: Outcome
    at_work_seconds: float

    @property
    def cpu_seconds(self) -> list[float]:
        """Of each process of the stage."""
        return [cpu for name, cpu in self.outcome.usage.process_cpu_seconds.items() if name.startswith("chunk")]


async def measure_replicas(place: Place, documents: int, cpu_ms: float) -> dict[str, Any]:
    """The time of a job whose chunk stage uses ``cpu_ms`` of one core a document, with one chunk process and with two.

    ``ratio`` is that of whole jobs, admission and the ledger's end included; ``ratio_at_work`` that of the time in
    which the stage was at work. ``busiest_share`` is the part of the documents that the busier of the two had: no ratio
    can be above its inverse. ``beside_cpu_seconds`` is what all other processes used meanwhile: on as many cores as
    there are replicas they want their part of them.
    """
    one = await _timed(place, documents, cpu_ms, 1)
    two = await _timed(place, documents, cpu_ms, 2)
    return {
        "documents": documents,
        "cpu_ms_per_document": cpu_ms,
        "one_replica_seconds": round(one.outcome.seconds, 2),
        "two_replicas_seconds": round(two.outcome.seconds, 2),
        "one_replica_at_work_seconds": round(one.at_work_seconds, 2),
        "two_replicas_at_work_seconds": round(two.at_work_seconds, 2),
        "one_replica_cpu_seconds": round(sum(one.cpu_seconds), 2),
        "two_replicas_cpu_seconds": round(sum(two.cpu_seconds), 2),
        "beside_cpu_seconds": round(sum(two.outcome.usage.cpu_seconds.values()) - sum(two.cpu_seconds), 2),
        "busiest_share": round(max(two.cpu_seconds) / sum(two.cpu_seconds), 3),
        "ratio_at_work": round(one.at_work_seconds / two.at_work_seconds, 2),
        "ratio": round(one.outcome.seconds / two.outcome.seconds, 2),
    }


async def _timed(place: Place, documents: int, cpu_ms: float, replicas: int) -> _Timed:
    plan = FleetPlan(
        partitions=PARTITIONS,
        replicas={"chunk": replicas},
        uses={"chunk": f"uses: busy, with: {{cpu_ms: {cpu_ms}}}"},
    )
    async with fleet(place, plan) as at_work:
        await at_work.run(Load(_WARM_UP))
        outcome = await at_work.run(Load(documents))
        return _Timed(outcome, await _seconds_at_work(at_work))


async def _seconds_at_work(at_work: Fleet) -> float:
    async with at_work.engine.connect() as connection:
        return float((await connection.exec_driver_sql(_AT_WORK)).scalar_one())
