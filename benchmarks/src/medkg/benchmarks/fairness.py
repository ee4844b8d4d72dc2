"""How long one document takes while another tenant's large job is under way, against the same on an idle fleet."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import replace
from statistics import median
from typing import Any

from medkg.benchmarks.fleet import Fleet, FleetPlan, fleet
from medkg.benchmarks.usage import Place

# As the gate-router has them by default: what a tenant may have under way is what bounds how long others wait.
PLAN = FleetPlan(page=40, tenant_documents=80)
_ALONE = 10  # documents that are timed, one after the other, on the idle and on the busy fleet
_LIMIT_SECONDS = 120.0
_FULL_SECONDS = 5.0  # until the large job fills what it may


async def measure_fairness(place: Place, documents: int = 100_000, cpu_ms: float = 20) -> dict[str, Any]:
    """Median time of a single document, from its job event to the end of its job, idle and beside a large job.

    ``documents`` are those of the other tenant's job, which is not waited for. ``busy stage``: the chunk stage uses
    ``cpu_ms`` of one core for every document and is what everything waits for; ``no work``: no stage does anything, and
    the cores are what is short.
    """
    return {
        "no work": await _beside(place, "nothing", documents, {}),
        "busy stage": await _beside(place, "busy", documents, {"chunk": f"uses: busy, with: {{cpu_ms: {cpu_ms}}}"}),
    }


async def _beside(place: Place, stages: str, documents: int, uses: Mapping[str, str]) -> dict[str, float]:
    async with fleet(place, replace(PLAN, uses=uses)) as at_work:
        await _one_by_one(at_work, f"{stages}-warm-up")
        idle = await _one_by_one(at_work, f"{stages}-idle")
        job = await at_work.submit({"paths": [str(documents), str(PLAN.size)]}, f"{stages}-large")
        await asyncio.sleep(_FULL_SECONDS)
        before, begun = await at_work.completed_of(f"{stages}-large"), time.time()
        busy = await _one_by_one(at_work, f"{stages}-busy")
        done, seconds = await at_work.completed_of(f"{stages}-large") - before, time.time() - begun
        async with at_work.engine.connect() as connection:
            found = await connection.exec_driver_sql("SELECT state FROM jobs WHERE job_id = $1", (job,))
            if (state := found.scalar()) != "running":
                raise RuntimeError(f"fairness: the large job is {state}, it should have been under way all the time")
    return {
        "other_tenant_per_second": round(done / seconds, 1),
        "idle_ms": round(1_000 * median(idle), 1),
        "busy_ms": round(1_000 * median(busy), 1),
        "busy_worst_ms": round(1_000 * max(busy), 1),
        "ratio": round(median(busy) / median(idle), 2),
    }


async def _one_by_one(at_work: Fleet, tenant: str) -> list[float]:
    """Seconds of each document, from its job event to the end of its job."""
    taken = []
    for number in range(_ALONE):
        begun = time.perf_counter()
        await at_work.submit({"paths": ["1", str(PLAN.size)]}, tenant)
        await at_work.ended(tenant, number + 1, _LIMIT_SECONDS, f"fairness, {tenant}", look_seconds=0.005)
        taken.append(time.perf_counter() - begun)
    return taken
