"""A Kafka by hand: ``python -m tests.servers.kafka --port 9092`` runs one in the foreground until Ctrl-C."""

import argparse
import sys
import tempfile
from pathlib import Path

from ..foreground import listen_for_interrupt, wait_for_interrupt
from .jars import KafkaUnavailable, kafka_jars
from .server import KafkaFailed, KafkaServer


def main() -> int:
    """Start, print the address, wait, stop. 1 when there is no Kafka to be had."""
    parser = argparse.ArgumentParser(prog="python -m tests.servers.kafka", description=__doc__)
    parser.add_argument("--port", type=int, default=9092, help="of the broker; 0 takes a free one (default 9092)")
    parser.add_argument("--data", type=Path, help="a folder to keep the data in (default: a temporary one)")
    parser.add_argument("--fetch", action="store_true", help="only fetch the jars; later starts need no network")
    arguments = parser.parse_args()
    try:
        jars = kafka_jars()
        if arguments.fetch:
            print(f"Kafka's jars are in {jars}")
            return 0
        asked = listen_for_interrupt()
        with tempfile.TemporaryDirectory(prefix="medkg-kafka-") as temporary:
            folder = arguments.data or Path(temporary)
            with KafkaServer(folder, jars=jars) as server:
                server.start(arguments.port)
                print(f"Kafka listens at {server.bootstrap}, data in {folder}; Ctrl-C stops it", flush=True)
                wait_for_interrupt(asked, server.is_running)
    except (KafkaUnavailable, KafkaFailed) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


sys.exit(main())
