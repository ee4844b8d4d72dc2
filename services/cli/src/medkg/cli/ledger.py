"""`medkg ledger`: migrate, import, rebuild, reconcile. It speaks to the database and to Kafka, as operators do."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer
from rich.text import Text

from medkg.cli.exits import Exit, UsageProblem
from medkg.cli.fleet_stores import BROKER_VARIABLE, DATABASE_VARIABLE, Stores, find_stores
from medkg.cli.letter_filters import seconds_of
from medkg.cli.session import JsonFlag, Session, session_of
from medkg.cli.terminal import clean, count, short

if TYPE_CHECKING:  # database and Kafka are much to import: only where they are spoken to
    from medkg.ledger.rebuild import Rebuilt
    from medkg.ledger.reconcile import Finding, Report

MIGRATE_EXAMPLES = """\
[bold]Examples[/bold]
  medkg ledger migrate --database postgresql://medkg@db/medkg"""
IMPORT_EXAMPLES = """\
[bold]Examples[/bold]
  medkg ledger import old-ledger.jsonl
  medkg ledger import postgresql://reader@old/pipeline --table documents"""
REBUILD_EXAMPLES = """\
[bold]Examples[/bold]
  medkg ledger rebuild --check     does the ledger say what its topic says? exit code 1 if not
  medkg ledger rebuild --yes       put the rebuilt one in its place"""
ARTEFACTS_EXAMPLES = """\
[bold]Examples[/bold]
  medkg ledger artefacts --blobs s3://medkg/blobs
  medkg ledger artefacts --grace 30d --apply"""
RECONCILE_EXAMPLES = """\
[bold]Examples[/bold]
  medkg ledger reconcile                         what is lost, why, and what would be done
  medkg ledger reconcile --data .medkg           in a fleet that `medkg up` runs
  medkg ledger reconcile --apply --older-than 15m
  medkg ledger reconcile --json | jq '.findings[]'"""

app = typer.Typer(help="Look after the ledger: its tables, old ledgers, what is lost.", no_args_is_help=True)

DatabaseOption = Annotated[
    str, typer.Option("--database", metavar="URL", help=f"PostgreSQL of the fleet ({DATABASE_VARIABLE}).")
]
BrokerOption = Annotated[
    str, typer.Option("--broker", metavar="HOST:PORT", help=f"Kafka of the fleet ({BROKER_VARIABLE}).")
]
DataOption = Annotated[
    Path,
    typer.Option(
        "--data",
        metavar="DIR",
        help="Without a database: the folder of a fleet that `medkg up` runs.",
        envvar="MEDKG_DATA_DIR",
    ),
]
_DATA = Path(".medkg")


@app.command("migrate", epilog=MIGRATE_EXAMPLES)
def migrate_ledger(
    ctx: typer.Context, database: DatabaseOption = "", data: DataOption = _DATA, as_json: JsonFlag = False
) -> None:
    """Bring the tables to this release, and fill in what rows of before lack. Can be broken off and run again."""
    from medkg.cli import ledger_work

    session = session_of(ctx, as_json)
    done, progress = ledger_work.migrate_ledger(_stores(session, data, database), lambda line: session.show(Text(line)))
    if as_json:
        session.emit({"migrations": done, "rows": progress.rows, "filled_in": progress.done})
    else:
        session.show(Text("the ledger is up to date", "green"))


@app.command("import", epilog=IMPORT_EXAMPLES)
def import_ledger(
    ctx: typer.Context,
    source: Annotated[str, typer.Argument(metavar="FILE|URL", help="Lines of JSON, or postgresql://…")],
    table: Annotated[str, typer.Option("--table", metavar="NAME", help="The table of the other database.")] = "ledger",
    origin: Annotated[
        str, typer.Option("--origin", metavar="NAME", help="What to call it; the same name, the same jobs.")
    ] = "",
    database: DatabaseOption = "",
    data: DataOption = _DATA,
    as_json: JsonFlag = False,
) -> None:
    """Bring the rows of another ledger in. Doing it again changes nothing; what was broken off is done to the end."""
    session = session_of(ctx, as_json)
    is_url = source.startswith(("postgresql://", "postgres://"))
    path = Path(source)
    if not is_url and not path.is_file():
        raise UsageProblem(f"no such file: {clean(source)}", hint="a file of JSON lines, or postgresql://…")
    from medkg.cli import ledger_work

    old = ledger_work.Old(source, table if is_url else None, origin or (table if is_url else path.name))
    progress = ledger_work.import_ledger(_stores(session, data, database), old, lambda line: session.show(Text(line)))
    if as_json:
        session.emit({"rows": progress.rows, "imported": progress.done})


@app.command("rebuild", epilog=REBUILD_EXAMPLES)
def rebuild_ledger(
    ctx: typer.Context,
    check: Annotated[bool, typer.Option("--check", help="Only compare.")] = False,
    allow_loss: Annotated[bool, typer.Option("--allow-loss", help="Also where the topic has forgotten jobs.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    database: DatabaseOption = "",
    data: DataOption = _DATA,
    broker: BrokerOption = "",
    as_json: JsonFlag = False,
) -> None:
    """Make the ledger once more from its topics: compare the two, or put it in the place of the one in use."""
    session = session_of(ctx, as_json)
    if not check and not yes and not typer.confirm("put a rebuilt ledger in the place of the one in use?", err=True):
        raise typer.Exit(Exit.OK)
    from medkg.cli import ledger_work

    found = ledger_work.rebuild_ledger(_stores(session, data, database, broker), is_check=check, allow_loss=allow_loss)
    if as_json:
        session.emit(msgspec.to_builtins(found))
    else:
        _show_rebuilt(session, found)
    if check and found.differences:
        raise typer.Exit(Exit.FAILED)


@app.command("artefacts", epilog=ARTEFACTS_EXAMPLES)
def orphaned_artefacts(
    ctx: typer.Context,
    apply: Annotated[bool, typer.Option("--apply", help="Remove what is found.")] = False,
    grace: Annotated[
        str, typer.Option("--grace", metavar="AGE", help="Younger ones are left: somebody may be about to name them.")
    ] = "7d",
    blobs: Annotated[str, typer.Option("--blobs", metavar="URL", help="The blob store (MEDKG_BLOBS_URL).")] = "",
    database: DatabaseOption = "",
    data: DataOption = _DATA,
    broker: BrokerOption = "",
    as_json: JsonFlag = False,
) -> None:
    """Find artefacts that no message, wait or file refers to. Without them, work that was done is done again."""
    session = session_of(ctx, as_json)
    seconds = seconds_of(grace)
    from medkg.cli import ledger_work

    found = ledger_work.orphaned_artefacts(
        _stores(session, data, database, broker, blobs), grace_seconds=seconds, apply=apply
    )
    if as_json:
        session.emit(msgspec.to_builtins(found))
        return
    for key in found.examples:
        session.show(Text(f"  {clean(key)}", "dim"))
    what = f"{count(found.blobs, 'artefact')} of {found.looked_at:,}, {found.size_bytes:,} bytes"
    done = "removed" if found.is_applied else "referred to by nobody; --apply removes them"
    session.show(Text(f"{what}: {done}" if found.blobs else f"{found.looked_at:,} looked at: all are referred to"))


@app.command("reconcile", epilog=RECONCILE_EXAMPLES)
def reconcile_ledger(
    ctx: typer.Context,
    apply: Annotated[bool, typer.Option("--apply", help="Repair what is found.")] = False,
    older_than: Annotated[
        str, typer.Option("--older-than", metavar="AGE", help="Silence that makes a document suspect: 15m, 2h.")
    ] = "60m",
    database: DatabaseOption = "",
    data: DataOption = _DATA,
    broker: BrokerOption = "",
    as_json: JsonFlag = False,
) -> None:
    """Find documents whose messages are gone, say why they count as lost, and (--apply) send them on again."""
    session = session_of(ctx, as_json)
    seconds = seconds_of(older_than)
    from medkg.cli import ledger_work

    report = ledger_work.reconcile_ledger(
        _stores(session, data, database, broker),
        older_than_seconds=seconds,
        apply=apply,
        say=lambda one: _show_finding(session, one),
    )
    if as_json:
        session.emit(msgspec.to_builtins(report))
    else:
        _show_report(session, report)


def _show_finding(session: Session, found: "Finding") -> None:
    what = f"document {short(found.doc_id)}" if found.doc_id else ""
    session.show(
        Text.assemble(("✗ ", "red"), f"job {short(found.job_id)}  ", (what, "cyan"), f"  {clean(found.what)}"),
        Text(f"    because {clean(found.why)}", "yellow"),
        Text(f"    {clean(found.how)}"),
    )


def _show_report(session: Session, report: "Report") -> None:
    for stage, runs in report.unended_runs.items():
        session.show(Text(f"{count(runs, 'run')} of {clean(stage)} never ended; their documents did", "dim"))
    for reason, number in report.undecided.items():
        session.show(Text(f"{number:,} could not be decided: {clean(reason)}", "yellow"))
    looked = f"{count(report.looked_at, 'silent document')} looked at"
    if not report.findings:
        session.show(Text(f"{looked}: nothing is lost", "green"))
        return
    done = "repaired" if report.is_applied else "found; --apply repairs what can be"
    session.show(Text(f"{looked}: {count(len(report.findings), 'loss', 'losses')} {done}"))


def _show_rebuilt(session: Session, found: "Rebuilt") -> None:
    for one in found.differences:
        session.show(
            Text.assemble(
                ("✗ ", "red"),
                f"{one.table}: {one.only_in_use:,} rows only in use, {one.only_rebuilt:,} only rebuilt; such as ",
                ", ".join(map(clean, one.examples)),
            )
        )
    read = f"{count(found.records, 'record')} read"
    if found.is_swapped:
        session.show(Text(f"{read}: the rebuilt ledger is in use", "green"))
    elif not found.differences:
        session.show(Text(f"{read}: the ledger says what its topics say", "green"))


def _stores(session: Session, data: Path, database: str, broker: str = "", blobs: str = "") -> Stores:
    stores = find_stores(database, broker, blobs, data, os.environ)
    if stores.folder is not None:
        session.show(Text(f"the fleet on {clean(stores.folder)}, Kafka {clean(stores.broker)}", "dim"))
    return stores
