"""`medkg dead-letters` and `medkg rejections`: what could not be done, and what was not accepted."""

from typing import Annotated

import typer
from rich.console import Group
from rich.padding import Padding
from rich.text import Text

from medkg.cli.answers import DeadLetterEntry, Position, Rejection
from medkg.cli.exits import NotFound
from medkg.cli.job_view import fault_text
from medkg.cli.session import JsonFlag, Session, TenantFlag, session_of
from medkg.cli.terminal import ago, clean, count, short, snippet
from medkg.cli.watch import resolve_job

EXAMPLES = """\
[bold]Examples[/bold]
  medkg dead-letters
  medkg dead-letters list --stage parse --code payload_malformed
  medkg dead-letters list --job 3f0c2a91 --json | jq '.dead_letters[].message'
  medkg dead-letters show 42"""
REJECTIONS_EXAMPLES = """\
[bold]Examples[/bold]
  medkg rejections
  medkg rejections --json | jq '.rejections[].faults'"""

_REASON = 300  # characters of a message in the list
_MOST = 1000  # dead letters among which one is looked up by its id

app = typer.Typer(help="List and explain what ended in the dead letters.", epilog=EXAMPLES, invoke_without_command=True)


@app.callback()
def dead_letters(ctx: typer.Context, as_json: JsonFlag = False) -> None:
    if ctx.invoked_subcommand is None:
        _list(session_of(ctx, as_json))


@app.command("list", epilog=EXAMPLES)
def list_dead_letters(
    ctx: typer.Context,
    job: Annotated[str, typer.Option("--job", metavar="JOB", help="Of this job, by the beginning of its id.")] = "",
    stage: Annotated[str, typer.Option("--stage", metavar="NAME", help="Of this stage.")] = "",
    code: Annotated[str, typer.Option("--code", metavar="CODE", help="With this error code.")] = "",
    tenant: TenantFlag = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=_MOST, help="At most so many, newest first.")] = 50,
    as_json: JsonFlag = False,
) -> None:
    """List dead letters: stage, code, document and reason."""
    _list(session_of(ctx, as_json), job, stage, code, tenant, limit)


@app.command("show", epilog=EXAMPLES)
def show_dead_letter(
    ctx: typer.Context,
    dead_letter: Annotated[str, typer.Argument(metavar="ID", help="As `medkg dead-letters list` gives it.")],
    as_json: JsonFlag = False,
) -> None:
    """Show one dead letter with its chain of causes and its place in Kafka."""
    session = session_of(ctx, as_json)
    with session.client() as client:
        answer = client.dead_letters(limit=_MOST)
    listed = answer.value.dead_letters
    number = next((number for number, letter in enumerate(listed) if str(letter.id) == dead_letter), None)
    if number is None:
        hint = f"the newest {_MOST:,} were looked through; see `medkg dead-letters list`"
        raise NotFound(f"no dead letter {clean(dead_letter)!r}", hint=hint)
    if as_json:
        session.emit(answer.raw["dead_letters"][number])
    else:
        session.show(_card(listed[number], session))


def rejections(
    ctx: typer.Context,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="At most so many, newest first.")] = 50,
    as_json: JsonFlag = False,
) -> None:
    """List job events that were not accepted, with every fault of each."""
    session = session_of(ctx, as_json)
    with session.client() as client:
        answer = client.rejections(limit)
    if as_json:
        session.emit(answer.raw)
    elif not answer.value.rejections:
        session.show(Text("no job event was rejected", "green"))
    else:
        for rejection in answer.value.rejections:
            session.show(_rejection(rejection, session))


def _list(
    session: Session,
    job: str = "",
    stage: str = "",
    code: str = "",
    tenant: str | None = None,
    limit: int = 50,
) -> None:
    with session.client(tenant) as client:
        job_id = resolve_job(client, job, session.tenant(tenant)) if job else ""
        answer = client.dead_letters(job_id, stage, code, limit)
    if session.as_json:
        session.emit(answer.raw)
        return
    letters = answer.value.dead_letters
    if not letters:
        session.show(Text("no dead letters" + (" that match" if job or stage or code else ""), "green"))
        return
    for letter in letters:
        session.show(_entry(letter, session))
    session.show(Text(f"{count(len(letters), 'dead letter')}; one of them whole: medkg dead-letters show ID", "dim"))


def _entry(letter: DeadLetterEntry, session: Session) -> Group:
    head = Text.assemble(
        (clean(letter.id), "bold"), "  ", (clean(letter.code), "bold red"), f" at {clean(letter.stage) or 'no stage'}"
    )
    if letter.doc_id:
        head.append(f"  document {short(letter.doc_id)}", "cyan")
    head.append(f"  {ago(letter.at, session.clock.now())}", "dim")
    return Group(head, Padding(Text(snippet(clean(letter.message), (), _REASON)), (0, 0, 1, 2)))


def _card(letter: DeadLetterEntry, session: Session) -> Group:
    head = Text.assemble(("✗ ", "red"), (clean(letter.code), "bold red"), f" at {clean(letter.stage) or 'no stage'}")
    facts = (
        ("job", clean(letter.job_id)),
        ("document", clean(letter.doc_id)),
        ("tenant", clean(letter.tenant_id)),
        ("attempt", clean(letter.attempt)),
        ("counted", clean(letter.disposition)),
        ("worker", clean(letter.worker)),
        ("message", _place(letter.position)),
        ("when", f"{clean(letter.at)} ({ago(letter.at, session.clock.now())})"),
    )
    return Group(
        head,
        Padding(Text(clean(letter.message, keep_lines=True)), (0, 0, 0, 2)),
        *(Padding(Text(f"because {clean(cause)}", "yellow"), (0, 0, 0, 2)) for cause in letter.causes or ()),
        *(Text.assemble((f"  {name:<10}", "dim"), value) for name, value in facts if value),
    )


def _rejection(rejection: Rejection, session: Session) -> Group:
    head = Text.assemble(
        ("✗ ", "red"), "job ", (clean(rejection.job_id), "bold"), (f"  {ago(rejection.at, session.clock.now())}", "dim")
    )
    if rejection.position is not None:
        head.append(f"  {_place(rejection.position)}", "dim")
    faults = [Padding(fault_text(fault), (0, 0, 0, 2)) for fault in rejection.faults]
    return Group(head, *faults)


def _place(position: Position | None) -> str:
    return f"{clean(position.topic)}[{position.partition}] @ {position.offset}" if position is not None else ""
