"""What a hop of medkg costs: eight stages that do nothing, each a process of its own, on servers that are there.

Full envelope, lifecycle events and ledger projection are on, as in production. Reported are documents per second, and
CPU per document and process, measured from the submission of the job until the ledger says that it has ended.

    python -m medkg.benchmarks.hops --kafka 127.0.0.1:9092 --database postgresql://… --documents 2000 --profile chunk
"""

import argparse
import asyncio
import json
import tempfile
from pathlib import Path

from medkg.benchmarks.fleet import STAGES, FleetPlan, fleet
from medkg.benchmarks.loads import Load
from medkg.benchmarks.usage import Place

_WARM_UP = 50


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
    plan = FleetPlan(size=arguments.bytes, page=arguments.page, profiled=arguments.profile)
    with tempfile.TemporaryDirectory() as folder:
        async with fleet(Place(arguments.kafka, arguments.database, Path(folder)), plan) as at_work:
            await at_work.run(Load(_WARM_UP))
            outcome = await at_work.run(Load(arguments.documents))
    used = outcome.usage.process_cpu_seconds
    return {
        "documents": arguments.documents,
        "bytes": arguments.bytes,
        "seconds": round(outcome.seconds, 3),
        "documents_per_second": round(arguments.documents / outcome.seconds, 1),
        "cpu_us_per_document": {name: round(value / arguments.documents * 1e6, 1) for name, value in used.items()},
        "rss_mib": {name: round(value) for name, value in outcome.usage.rss_mib.items()},
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


if __name__ == "__main__":
    main()
