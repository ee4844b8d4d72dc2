"""`medkg up`: the fleet, or a part of it, in this process."""

from pathlib import Path
from typing import Annotated

import typer

from medkg.cli.exits import UsageProblem

EXAMPLES = """\
[bold]Examples[/bold]
  medkg up
  medkg up --data /var/lib/medkg --port 8750 --files-root /srv/records
  medkg up --broker kafka:9092 --services chunk,embed

Ctrl-C lets what is under way finish and stops clean. A second fleet on the same folder is refused."""

_MAX_PORT = 65_535


def up(
    data: Annotated[Path, typer.Option("--data", metavar="DIR", help="Where the fleet keeps everything.")] = Path(
        ".medkg"
    ),
    broker: Annotated[
        str, typer.Option("--broker", metavar="embedded|HOST:PORT", help="The Kafka to work on.")
    ] = "embedded",
    services: Annotated[
        str,
        typer.Option("--services", metavar="NAME,NAME", help="Only these; needs a real broker.", show_default="all"),
    ] = "",
    port: Annotated[
        int, typer.Option("--port", min=0, max=_MAX_PORT, help="Of the gateway; 0 takes a free one.")
    ] = 8750,
    database: Annotated[
        str, typer.Option("--database", metavar="URL", help="postgresql://…", show_default="embedded")
    ] = "",
    files_root: Annotated[
        list[Path] | None,
        typer.Option(
            "--files-root",
            metavar="DIR",
            help="Only files below may be read; repeat for several.",
            show_default="any that this user can read",
        ),
    ] = None,
    topologies: Annotated[
        Path | None, typer.Option("--topologies", metavar="DIR", help="Pipelines, instead of those of medkg.")
    ] = None,
) -> None:
    """Start the fleet: every service a consumer of its own, with embedded stores unless told otherwise."""
    if broker != "embedded":
        check_broker(broker, "--broker")
    from medkg.local.fleet import FleetOptions, run_fleet  # a fleet is much to import: only where one is started

    options = FleetOptions(
        data_dir=data,
        broker=broker,
        services=tuple(name for name in services.replace(" ", "").split(",") if name),
        gateway_port=port,
        database_url=database,
        files_roots=tuple(files_root or ()),
        topologies_dir=topologies,
    )
    raise typer.Exit(run_fleet(options))


def check_broker(broker: str, flag: str) -> None:
    """One or more ``HOST:PORT``, comma-separated as Kafka clients take them.

    Raises:
        UsageProblem: it is something else.
    """
    for address in broker.split(","):
        host, _, port = address.strip().rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) <= _MAX_PORT:
            raise UsageProblem(f"{flag}: expected HOST:PORT, found {address.strip()!r}")
