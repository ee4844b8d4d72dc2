"""`make benchmark`: medkg and its peers on one real Kafka and one PostgreSQL, in one run.

Starts both servers in a folder of its own (Kafka from its jars, PostgreSQL from its wheel), measures one system after
another, and writes benchmarks/results: latest.json, latest.txt (what is printed) and latest.svg.

    make benchmark                                            everything but the long part (about 15 min)
    make benchmark ARGS="--only medkg,bare --documents 2000"  two systems (2 min)
    make benchmark ARGS="--parts throughput --only medkg"     how many documents a second, and no more
    make benchmark ARGS="--parts overhead --inputs ../shared/corpus/jats/pmc"
    make benchmark ARGS="--long"                              and the memory of every process over 100,000 documents
"""

import argparse
import asyncio
import json
import os
import platform
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import psutil
from tests.servers.kafka.jars import kafka_jars
from tests.servers.kafka.server import KafkaServer

from medkg.benchmarks.fairness import measure_fairness
from medkg.benchmarks.growth import measure_growth
from medkg.benchmarks.measure import SYSTEMS, Asked, measure_system
from medkg.benchmarks.overhead import measure_overhead
from medkg.benchmarks.plot import picture
from medkg.benchmarks.report import report
from medkg.benchmarks.scaling import measure_replicas
from medkg.benchmarks.usage import Place
from medkg.local.embedded_postgres import embedded_postgres

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PARTS = ("throughput", "latency", "replicas", "overhead", "fairness", "growth")
SAMPLES = ("samples/trials", "samples/articles")


def arguments_of(given: Sequence[str] | None = None) -> argparse.Namespace:
    """What was asked for, on the command line or in ``given``."""
    parser = argparse.ArgumentParser(
        prog="make benchmark", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--only", type=_names(SYSTEMS), default=SYSTEMS, metavar="NAME,…", help=f"of {', '.join(SYSTEMS)}")
    add("--parts", type=_names(PARTS), default=PARTS[:-1], metavar="NAME,…", help=f"of {', '.join(PARTS)}")
    add("--documents", type=int, default=20_000, help="of the throughput (default 20000)")
    add("--bytes", type=int, default=1_900, help="of a document (default 1900)")
    add("--repeats", type=int, default=1, help="of the throughput; the median is kept (default 1)")
    add("--seconds", type=float, default=15, help="of each paced load (default 15)")
    add("--slow-documents", type=int, default=20, help="for Dagster, whose rate is extrapolated (default 20)")
    add("--replica-documents", type=int, default=400, help="50 ms of CPU each (default 400)")
    add("--inputs", nargs="+", default=list(SAMPLES), help="real records for the overhead (default the samples)")
    add("--passes", type=int, default=5, help="over the real records (default 5)")
    add("--long", action="store_true", help="also the part `growth`: 15 min")
    add("--growth-documents", type=int, default=100_000, help="of the part `growth` (default 100000)")
    add("--results", type=Path, default=RESULTS, help="folder to write to (default benchmarks/results)")
    arguments = parser.parse_args(given)
    if arguments.long and "growth" not in arguments.parts:
        arguments.parts = (*arguments.parts, "growth")
    return arguments


def _names(known: Sequence[str]) -> Any:
    def read(text: str) -> tuple[str, ...]:
        asked = tuple(text.split(","))
        unknown = [name for name in asked if name not in known]
        if unknown:
            raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; there are: {', '.join(known)}")
        return tuple(name for name in known if name in asked)

    return read


async def measure(asked: argparse.Namespace) -> dict[str, Any]:
    """Everything that was asked for, one after another, so that nothing disturbs what is measured."""
    results: dict[str, Any] = {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": about_machine(),
        "settings": {"documents": asked.documents, "bytes": asked.bytes, "repeats": asked.repeats},
    }
    plan = Asked(
        documents=asked.documents,
        size=asked.bytes,
        slow_documents=asked.slow_documents,
        paced_seconds=asked.seconds,
        repeats=asked.repeats,
        with_latency="latency" in asked.parts,
    )
    paths = [str((ROOT / path).resolve()) for path in asked.inputs]
    tried = _Tried(results)
    for name in asked.only if {"throughput", "latency"} & set(asked.parts) else ():
        print(f"{name}: {asked.documents} documents of {asked.bytes} bytes", flush=True)
        found = await tried(name, partial(measure_system, name, plan))
        if found is not None:
            results.setdefault("systems", {})[name] = found
            print(f"  {name}: {found['documents_per_second']} documents/s", flush=True)
    others: dict[str, tuple[str, Measurement]] = {
        "replicas": (
            "a stage that computes, one process and two",
            lambda place: measure_replicas(place, asked.replica_documents, cpu_ms=50),
        ),
        "overhead": (
            f"real stages on {', '.join(asked.inputs)}, {asked.passes} passes",
            lambda place: measure_overhead(place, paths, asked.passes),
        ),
        "fairness": ("one document beside another tenant's large job", measure_fairness),
        "growth": (
            f"memory over {asked.growth_documents} documents",
            lambda place: measure_growth(place, asked.growth_documents),
        ),
    }
    for part, (what, measurement) in others.items():
        if part in asked.parts:
            print(f"{part}: {what}", flush=True)
            if (found := await tried(part, measurement)) is not None:
                results[part] = found
    return results


Measurement = Callable[[Place], Awaitable[dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class _Tried:
    """Measures on fresh servers, so that nobody pays for what another left; a failure leaves the rest standing."""

    results: dict[str, Any]

    async def __call__(self, name: str, measurement: Measurement) -> dict[str, Any] | None:
        try:
            async with servers() as place:
                return await measurement(place)
        except (TimeoutError, RuntimeError) as error:
            print(f"  {name} failed: {error}", file=sys.stderr, flush=True)
            self.results.setdefault("failures", {})[name] = str(error)
            return None


@asynccontextmanager
async def servers() -> AsyncIterator[Place]:
    """A Kafka and a PostgreSQL, started for what is measured in the block and gone after it."""
    with tempfile.TemporaryDirectory(prefix="medkg-bench-") as name:  # short: a socket path holds 100 characters
        folder = Path(name)
        with KafkaServer(folder / "kafka", jars=kafka_jars()) as kafka:
            async with embedded_postgres(folder / "pg") as database:
                bootstrap = kafka.start()
                postmaster = int((folder / "pg" / "postmaster.pid").read_text().split()[0])
                yield Place(bootstrap, database, folder, kafka.pid, postmaster)


def about_machine() -> dict[str, Any]:
    """What a reader needs to know of the machine before reading absolute figures."""
    models = [line.partition(":")[2].strip() for line in _cpuinfo().splitlines() if line.startswith("model name")]
    return {
        "processor": models[0] if models else platform.processor() or platform.machine(),
        "cores": psutil.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "system": platform.platform(),
        "python": platform.python_version(),
        "load_before": round(os.getloadavg()[0], 2),
    }


def _cpuinfo() -> str:
    path = Path("/proc/cpuinfo")
    return path.read_text() if path.exists() else ""


async def _until_told(asked: argparse.Namespace) -> dict[str, Any]:
    """Measure; SIGTERM ends it like Ctrl-C, with servers and processes stopped in order."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await measure(asked)


def write(results: dict[str, Any], folder: Path) -> str:
    """Keep the results as JSON, text and picture; returns the text."""
    folder.mkdir(parents=True, exist_ok=True)
    text = report(results)
    (folder / "latest.json").write_text(json.dumps(results, indent=2) + "\n")
    (folder / "latest.txt").write_text(text + "\n")
    if results.get("systems"):
        (folder / "latest.svg").write_text(picture(results))
    return text


def main(given: Sequence[str] | None = None) -> int:
    """Measure, print, and keep the figures. 0, or 1 when something did not come through (said on stderr)."""
    asked = arguments_of(given)
    try:
        results = asyncio.run(_until_told(asked))
    except asyncio.CancelledError:
        print("benchmark: stopped by SIGTERM; nothing is kept", file=sys.stderr)
        return 1
    print(f"\n{write(results, asked.results)}\n\nkept in {asked.results}")
    return 1 if results.get("failures") else 0


if __name__ == "__main__":
    sys.exit(main())
