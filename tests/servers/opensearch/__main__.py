"""An OpenSearch by hand: ``python -m tests.servers.opensearch --port 9200`` runs one in the foreground until Ctrl-C."""

import argparse
import sys

from ..foreground import listen_for_interrupt, wait_for_interrupt
from .distribution import OpenSearchUnavailable, distribution
from .server import OpenSearchFailed, OpenSearchServer


def main() -> int:
    """Start, print the address, wait, stop. 1 when there is no OpenSearch to be had."""
    parser = argparse.ArgumentParser(prog="python -m tests.servers.opensearch", description=__doc__)
    parser.add_argument("--port", type=int, default=9200, help="0 takes a free one (default 9200)")
    parser.add_argument("--fetch", action="store_true", help="only fetch it; later starts need no network")
    arguments = parser.parse_args()
    try:
        found = distribution()
        if arguments.fetch:
            print(f"OpenSearch is in {found}")
            return 0
        asked = listen_for_interrupt()
        with OpenSearchServer(found, lasts=True) as server:
            print(f"OpenSearch listens at {server.start(arguments.port)}; Ctrl-C stops it", flush=True)
            wait_for_interrupt(asked, server.is_running)
    except (OpenSearchUnavailable, OpenSearchFailed) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


sys.exit(main())
