"""`make benchmark`: a real Kafka from its jars, a PostgreSQL from its wheel, and the cost of a hop between them."""

import argparse
import asyncio
import json
import tempfile
from pathlib import Path

from medkg.benchmarks.hops import arguments_of, measure, table
from tests.servers.kafka.jars import kafka_jars
from tests.servers.kafka.server import KafkaServer

from medkg.local.embedded_postgres import embedded_postgres

RESULTS = Path(__file__).parent / "results"


async def run(documents: int) -> dict[str, object]:
    """Start the servers in a folder of their own, measure, stop them."""
    with tempfile.TemporaryDirectory(prefix="medkg-bench-") as name:
        folder = Path(name)
        with KafkaServer(folder / "kafka", jars=kafka_jars()) as kafka:
            async with embedded_postgres(folder / "postgres") as database:
                options = ["--kafka", kafka.start(), "--database", database, "--documents", str(documents)]
                return await measure(arguments_of(options))


def main() -> None:
    """Measure, print, and keep the figures under benchmarks/results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, default=2_000)
    figures = asyncio.run(run(parser.parse_args().documents))
    print(table(figures))
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "hops.json").write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
