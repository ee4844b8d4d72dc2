"""`medkg status` and `medkg version`."""

import platform
from importlib.metadata import version as version_of
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from medkg.cli.answers import FleetStatus
from medkg.cli.job_view import STATE_STYLES, waiting_text
from medkg.cli.session import JsonFlag, Session, session_of
from medkg.cli.terminal import clean

EXAMPLES = """\
[bold]Examples[/bold]
  medkg status
  medkg status --json | jq .documents
  medkg --gateway http://fleet.example:8750 status"""
VERSION_EXAMPLES = """\
[bold]Examples[/bold]
  medkg version
  medkg version --json"""


def status(ctx: typer.Context, as_json: JsonFlag = False) -> None:
    """Show what is running, how much is done, what waits, and what went wrong."""
    session = session_of(ctx, as_json)
    with session.client() as client:
        answer = client.status()
    if as_json:
        session.emit(answer.raw)
    else:
        session.show(status_view(answer.value, session))


def version(
    ctx: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, one object on one line.")] = False,
) -> None:
    """Print the version of medkg and of Python."""
    session = session_of(ctx, as_json)
    known = {"medkg": version_of("medkg-cli"), "python": platform.python_version()}
    if as_json:
        session.emit(known)
    else:
        session.show(Text.assemble("medkg ", (known["medkg"], "bold"), (f"  Python {known['python']}", "dim")))


def status_view(found: FleetStatus, session: Session) -> Table:
    """Two columns: what, and how it is."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    table.add_row("gateway", Text(session.settings.gateway, "green"))
    table.add_row("broker", _described(found.broker))
    for number, service in enumerate(_grouped(found.services)):
        table.add_row("services" if number == 0 else "", _described(service))
    for number, (name, store) in enumerate(sorted(found.stores.items())):
        table.add_row("stores" if number == 0 else "", Text.assemble((f"{clean(name)}  ", "bold"), _described(store)))
    table.add_row("jobs", _by_state(found.jobs))
    table.add_row("documents", _by_state(found.documents))
    for number, wait in enumerate(found.waiting):
        table.add_row("waiting" if number == 0 else "", waiting_text(wait, session.clock.now()))
    table.add_row("rejections", _trouble(found.rejections, "medkg rejections"))
    table.add_row("dead letters", _trouble(found.dead_letters, "medkg dead-letters"))
    return table


def _grouped(services: tuple[Any, ...]) -> list[Any]:
    """Services that only have a name share a line."""
    names = [clean(service) for service in services if isinstance(service, str)]
    facts = [service for service in services if not isinstance(service, str)]
    return [", ".join(names), *facts] if names else facts


def _described(value: Any) -> Text:
    """Whatever a part of the fleet says of itself: a name, or facts by name."""
    if not isinstance(value, dict):
        return Text(clean(value) or "-")
    name = clean(value.get("name") or value.get("service") or "")
    facts = "  ".join(
        f"{clean(key)} {clean(fact)}"
        for key, fact in value.items()
        if key not in {"name", "service"} and fact is not None
    )
    return Text.assemble((f"{name}  " if name else "", "bold"), facts)


def _by_state(counts: dict[str, int]) -> Text:
    text = Text("   ").join(
        Text(f"{number:,} {clean(state).replace('_', ' ')}", STATE_STYLES.get(state, ""))
        for state, number in counts.items()
        if number
    )
    return text if text.plain else Text("none", "dim")


def _trouble(number: int, command: str) -> Text:
    return Text.assemble((f"{number:,}", "red"), (f"  {command}", "dim")) if number else Text("none", "dim")
