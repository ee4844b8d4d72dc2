"""What a hop costs: eight stages that do nothing, each a process of its own, on a real Kafka and PostgreSQL.

Full envelope, lifecycle events and ledger projection are on, as in production. Reported are documents per second, and
CPU per document and process, measured from the submission of the job until the ledger says that it has ended.

    python -m medkg.benchmarks.hops --kafka 127.0.0.1:9092 --documents 2000
"""

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil

from medkg.contracts.ids import stable_id
from medkg.runtime.broker import publish_job_event
from medkg.runtime.settings import KafkaSettings
from medkg.storage.engine import Engine, migrate, open_engine

STAGES = ("ingest", "parse", "validate", "chunk", "embed", "index", "extract", "kg")
TYPES = ("Ingest", "Parse", "Validate", "Chunk", "Embed", "Index", "Extract", "KG")


def main() -> None:
    """Run once and print a table; ``--json FILE`` keeps the figures."""
    arguments = arguments_of()
    figures = asyncio.run(measure(arguments))
    print(table(figures))
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2))


def arguments_of(given: list[str] | None = None) -> argparse.Namespace:
    """What was asked for, on the command line or in ``given``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kafka", required=True, help="HOST:PORT of a real Kafka")
    parser.add_argument("--database", required=True, help="postgresql://… of an empty database")
    parser.add_argument("--documents", type=int, default=2_000)
    parser.add_argument("--bytes", type=int, default=1_900, help="characters of a document")
    parser.add_argument("--page", type=int, default=500, help="documents of one page of the source")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--profile", default="", help="service to run under cProfile; writes SERVICE.prof here")
    return parser.parse_args(given)


async def measure(arguments: argparse.Namespace) -> dict[str, object]:
    """Start the fleet, warm it up with a small job, time the large one."""
    kafka = KafkaSettings(bootstrap=arguments.kafka, topic_prefix=f"hops-{os.getpid()}-", partitions=1)
    engine = open_engine(arguments.database)
    await migrate(engine)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        environment = _environment(arguments, kafka, folder)
        processes = stack.enter_context(_fleet(environment, arguments.profile))
        await _run_job(kafka, engine, 50, arguments.bytes, "warm-up")
        before = {name: _cpu_seconds(process) for name, process in processes.items()}
        begun = time.perf_counter()
        await _run_job(kafka, engine, arguments.documents, arguments.bytes, "timed")
        seconds = time.perf_counter() - begun
        used = {name: _cpu_seconds(process) - before[name] for name, process in processes.items()}
        memory = {name: process.memory_info().rss // 2**20 for name, process in processes.items()}
    await engine.dispose()
    return {
        "documents": arguments.documents,
        "bytes": arguments.bytes,
        "seconds": round(seconds, 3),
        "documents_per_second": round(arguments.documents / seconds, 1),
        "cpu_us_per_document": {name: round(value / arguments.documents * 1e6, 1) for name, value in used.items()},
        "rss_mib": memory,
    }


def table(figures: dict[str, object]) -> str:
    """The figures for people."""
    cpu, memory = figures["cpu_us_per_document"], figures["rss_mib"]
    assert isinstance(cpu, dict) and isinstance(memory, dict)
    rows = [f"{name:<12} {cpu[name]:>10.1f} {memory[name]:>8}" for name in cpu]
    hops = [cpu[name] for name in STAGES[1:]]
    return "\n".join(
        [
            f"{figures['documents']} documents of {figures['bytes']} bytes in {figures['seconds']} s: "
            f"{figures['documents_per_second']} documents/s through {len(STAGES)} stages",
            f"{'process':<12} {'CPU us/doc':>10} {'RSS MiB':>8}",
            *rows,
            f"{'mean hop':<12} {sum(hops) / len(hops):>10.1f}",
        ]
    )


def _environment(arguments: argparse.Namespace, kafka: KafkaSettings, folder: Path) -> dict[str, str]:
    topologies = folder / "topologies"
    topologies.mkdir()
    lines = ['version: "1.0"', "name: noop", "stages:"]
    for index, (name, kind) in enumerate(zip(STAGES, TYPES, strict=True)):
        after = f", depends_on: [{STAGES[index - 1]}]" if index else ""
        lines.append(f"  - {{name: {name}, type: {kind}Stage, uses: noop{after}}}")
    (topologies / "noop.yaml").write_text("\n".join(lines))
    (topologies / "resilience.yaml").write_text("policies:\n  default: {}\n")
    return os.environ | {
        "MEDKG_KAFKA_BOOTSTRAP": kafka.bootstrap,
        "MEDKG_KAFKA_TOPIC_PREFIX": kafka.topic_prefix,
        "MEDKG_KAFKA_PARTITIONS": "1",
        "MEDKG_DATABASE_URL": arguments.database,
        "MEDKG_DATA_DIR": str(folder / "data"),
        "MEDKG_TOPOLOGIES_DIR": str(topologies),
        "MEDKG_ROUTER_PAGE_DOCUMENTS": str(arguments.page),
        "MEDKG_ROUTER_TENANT_DOCUMENTS": "20000",
        "MEDKG_LOG_LEVEL": "warning",
    }


@contextmanager
def _fleet(environment: dict[str, str], profiled: str) -> Iterator[dict[str, psutil.Process]]:
    started: dict[str, subprocess.Popen[bytes]] = {}
    try:
        for name in (*STAGES, "gate_router", "ledger"):
            how = ["-m", "cProfile", "-o", f"{name}.prof"] if name == profiled else []
            started[name] = subprocess.Popen([sys.executable, *how, "-m", f"medkg.{name}"], env=environment)
        yield {name: psutil.Process(process.pid) for name, process in started.items()}
    finally:
        for process in started.values():
            process.send_signal(signal.SIGTERM)
        for process in started.values():
            process.wait(timeout=40)


async def _run_job(kafka: KafkaSettings, engine: Engine, count: int, size: int, name: str) -> None:
    submission = {
        "tenant_id": "bench",
        "source": "files",
        "pipeline": "noop",
        "selection": {"paths": [str(count), str(size)]},
    }
    event_id = stable_id(name, time.time_ns())
    job_id = await publish_job_event(kafka, json.dumps(submission).encode(), source="benchmark", event_id=event_id)
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        async with engine.connect() as connection:
            found = await connection.exec_driver_sql("SELECT state FROM jobs WHERE job_id = $1", (job_id,))
            state = found.scalar()
        if state in {"completed", "completed_with_failures", "rejected"}:
            if state != "completed":
                raise SystemExit(f"the job ended as {state}")
            return
        await asyncio.sleep(0.05)
    raise SystemExit("the job did not end within five minutes")


def _cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


if __name__ == "__main__":
    main()
