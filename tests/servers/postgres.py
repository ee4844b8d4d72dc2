"""A PostgreSQL by hand: ``python -m tests.servers.postgres`` runs the embedded one in the foreground until Ctrl-C."""

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from medkg.contracts.errors import ResourceUnavailableError
from medkg.local.embedded_postgres import embedded_postgres

from .foreground import listen_for_interrupt


def main() -> int:
    """Start, print the URL, wait, stop. 1 when it does not start."""
    parser = argparse.ArgumentParser(prog="python -m tests.servers.postgres", description=__doc__)
    parser.add_argument("--data", type=Path, help="a folder to keep the data in (default: a temporary one)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(
        prefix="medkg-pg-"
    ) as temporary:  # short: a socket path holds about 100 characters
        try:
            asyncio.run(_serve(arguments.data or Path(temporary)))
        except ResourceUnavailableError as error:
            print(error, file=sys.stderr)
            return 1
    return 0


async def _serve(folder: Path) -> None:
    asked = listen_for_interrupt()
    async with embedded_postgres(folder) as url:
        print(f"PostgreSQL listens at {url}, data in {folder}; Ctrl-C stops it", flush=True)
        await asyncio.to_thread(asked.wait)


if __name__ == "__main__":
    sys.exit(main())
