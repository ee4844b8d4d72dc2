"""Driving the Dagster peer: one process that runs the documents of a load one after another."""

import asyncio
import json
import os
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from medkg.benchmarks.dagster_environment import dagster_python
from medkg.benchmarks.loads import Load, Outcome, Usage
from medkg.benchmarks.usage import Place

_SCRIPT = Path(__file__).parent / "peers" / "dagster_ops.py"
_START_SECONDS = 120
_SLOWEST_RUN_SECONDS = 10
_INSTANCE = "telemetry:\n  enabled: false\n"  # all else is the default: SQLite in this folder


@dataclass(frozen=True, slots=True)
class DagsterPeer:
    """Ready to run loads, each in a process of its own on the same instance."""

    python: Path
    home: Path
    size: int

    async def run(self, load: Load) -> Outcome:
        """Run the documents of a load, none before its time.

        Raises:
            TimeoutError: it did not end in time.
            RuntimeError: it failed; the message ends with what it said.
        """
        return await asyncio.to_thread(self._run, load)

    def _run(self, load: Load) -> Outcome:
        limit = _START_SECONDS + load.documents * _SLOWEST_RUN_SECONDS
        try:
            done = subprocess.run(
                [str(self.python), str(_SCRIPT), str(self.size)],
                input=json.dumps(load.arrivals()),
                env={**os.environ, "DAGSTER_HOME": str(self.home)},
                capture_output=True,
                text=True,
                timeout=limit,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise TimeoutError(f"dagster, {load.documents} documents: not done after {limit} s") from error
        if done.returncode != 0:
            raise RuntimeError(f"dagster, {load.documents} documents: {done.stderr[-1500:]}")
        told = json.loads(done.stdout)
        cpu = {"workers": float(told["cpu_seconds"])}
        usage = Usage(cpu, {"dagster": cpu["workers"]}, {"dagster": float(told["rss_mib"])})
        return Outcome(float(told["seconds"]), usage, tuple(told["latencies_ms"]) if load.per_second else ())


@asynccontextmanager
async def dagster_peer(place: Place, size: int) -> AsyncIterator[DagsterPeer]:
    """The peer, with an instance in a folder of its own."""
    home = place.folder / "dagster"
    home.mkdir(parents=True, exist_ok=True)
    (home / "dagster.yaml").write_text(_INSTANCE)
    yield DagsterPeer(await asyncio.to_thread(dagster_python), home, size)
