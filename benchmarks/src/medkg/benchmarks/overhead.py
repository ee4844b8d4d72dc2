"""What the fleet costs beside the work itself: real stages on real records, through the fleet and in a plain loop."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from medkg.benchmarks.fleet import STAGES, FleetPlan, fleet
from medkg.benchmarks.usage import Place
from medkg.runtime.topologies import default_topologies_dir

_LIMIT_SECONDS = 900.0


async def measure_overhead(place: Place, paths: Sequence[str], passes: int) -> dict[str, Any]:
    """CPU of the pipeline ``auto`` per document: the eight stage processes of the fleet, and one process with a loop.

    Each pass belongs to a tenant of its own, so that nothing is found done; one pass before is not counted. The plain
    loop hands objects from stage to stage: it reads and writes no JSON, keeps no artefact and tells nobody.

    Raises:
        TimeoutError: one of them did not end within 15 minutes.
        RuntimeError: one of them failed, or they completed different numbers of documents.
    """
    plan = FleetPlan(topologies=default_topologies_dir().absolute())
    async with fleet(place, plan) as at_work:
        documents = 0
        meter = at_work.meter()
        for number in range(passes + 1):
            if number == 1:
                meter = at_work.meter()
            tenant = f"pass-{number}"
            await at_work.submit({"paths": list(paths)}, tenant, "auto")
            await at_work.ended(tenant, 1, _LIMIT_SECONDS, f"real stages, pass {number}", may_refuse=True)
            documents += await at_work.completed_of(tenant) if number else 0
        usage = meter.read()
    plain = await asyncio.to_thread(_plain, place, paths, passes)
    if plain["documents"] != documents:
        raise RuntimeError(f"the fleet completed {documents} documents, the plain loop {plain['documents']}")
    if not documents:
        raise RuntimeError("no document of these records went all the way")
    fleet_ms, plain_ms = (
        1000 * seconds / documents for seconds in (usage.cpu_seconds["workers"], plain["cpu_seconds"])
    )
    return {
        "documents": documents,
        "fleet_cpu_ms_per_document": round(fleet_ms, 2),
        "fleet_coordination_cpu_ms_per_document": round(1000 * usage.cpu_seconds["coordination"] / documents, 2),
        "plain_cpu_ms_per_document": round(plain_ms, 2),
        "ratio": round(fleet_ms / plain_ms, 3),
        "cpu_ms_per_document": {
            stage: {
                "fleet": round(1000 * usage.process_cpu_seconds[stage] / documents, 2),
                "plain": round(1000 * plain["stage_cpu_seconds"].get(stage, 0.0) / documents, 2),
            }
            for stage in STAGES
        },
    }


def _plain(place: Place, paths: Sequence[str], passes: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "medkg.benchmarks.plain", "--database", place.database]
    command += ["--data", str(place.folder / "plain"), "--passes", str(passes), *paths]
    try:
        done = subprocess.run(
            command,
            env={**os.environ, "MEDKG_INGEST_FILES_ROOTS": "/"},
            capture_output=True,
            text=True,
            timeout=_LIMIT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise TimeoutError(f"the plain loop: not done after {_LIMIT_SECONDS:.0f} s") from error
    if done.returncode != 0:
        raise RuntimeError(f"the plain loop failed: {done.stderr[-1500:]}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result
