"""Does a service's memory grow with the documents it has seen?"""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import psutil

from medkg.benchmarks.fleet import STAGES, Fleet, fleet
from medkg.benchmarks.loads import Load, slope
from medkg.benchmarks.usage import Place, rss_mib

_JOB = 10_000
_SAMPLE_SECONDS = 1.0
_EVENTS = 2 * len(STAGES)  # of one document
_SETTLING = 0.2  # of the documents: caches and pools fill first

Sample = tuple[float, dict[str, float]]  # documents so far, MiB by process


async def measure_growth(place: Place, documents: int) -> dict[str, Any]:
    """Resident memory of every process of the fleet over so many documents, in jobs of 10,000.

    ``kib_per_1000_documents`` is how steep the samples after the first fifth rise (:func:`slope`).
    """
    async with fleet(place) as at_work:
        await at_work.run(Load(50))
        processes = {**at_work.workers, **at_work.coordination}
        samples: list[Sample] = []
        sampling = asyncio.create_task(_sample(at_work, processes, samples))
        try:
            left = documents
            while left > 0:
                await at_work.run(Load(min(left, _JOB)))
                left -= _JOB
                print(f"    memory: {documents - max(left, 0)} of {documents} documents", flush=True)
        finally:
            sampling.cancel()
            with suppress(asyncio.CancelledError):
                await sampling
    settled = [sample for sample in samples if sample[0] >= _SETTLING * documents]
    return {"documents": documents, "samples": len(settled), "processes": {n: _line(n, settled) for n in processes}}


async def _sample(at_work: Fleet, processes: Mapping[str, psutil.Process], samples: list[Sample]) -> None:
    first = at_work.events.end()
    while True:
        done = (at_work.events.end() - first) / _EVENTS
        samples.append((done, {name: rss_mib(process) for name, process in processes.items()}))
        await asyncio.sleep(_SAMPLE_SECONDS)


def _line(name: str, samples: list[Sample]) -> dict[str, float]:
    points = [(done, memory[name]) for done, memory in samples]
    held = [mib for _, mib in points] or [0.0]
    growth = slope(points) * 1_000 * 1_024
    return {
        "first_mib": held[0],
        "last_mib": held[-1],
        "max_mib": max(held),
        "kib_per_1000_documents": round(growth, 1),
    }
