"""`medkg dead-letters` and `medkg rejections`: what could not be done, and what was not accepted."""

import base64
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Group
from rich.padding import Padding
from rich.text import Text

from medkg.cli.answers import DeadLetterEntry, DeadMessage, Position, Rejection
from medkg.cli.exits import UsageProblem
from medkg.cli.job_view import fault_text
from medkg.cli.letter_decisions import DROP_EXAMPLES, REDRIVE_EXAMPLES, drop, redrive
from medkg.cli.letter_filters import (
    PAGE,
    CodeOption,
    JobOption,
    LetterFilter,
    NewerOption,
    OlderOption,
    StageOption,
    letter_of,
)
from medkg.cli.session import JsonFlag, Session, TenantFlag, session_of
from medkg.cli.terminal import ago, clean, count, short, snippet
from medkg.cli.watch import resolve_job

EXAMPLES = """\
[bold]Examples[/bold]
  medkg dead-letters
  medkg dead-letters list --stage parse --code payload_malformed
  medkg dead-letters list --job 3f0c2a91 --json | jq '.dead_letters[].message'
  medkg dead-letters show 'medkg.parse.v1/2/118~5be0c1d2' --save message.json
  medkg dead-letters redrive --stage embed --dry-run"""
REJECTIONS_EXAMPLES = """\
[bold]Examples[/bold]
  medkg rejections
  medkg rejections --json | jq '.rejections[].faults'"""

_REASON = 300  # characters of a message in the list
_SHOWN_BYTES = 16_384  # of a message that is shown; --save writes all of it

app = typer.Typer(
    help="List and explain what ended in the dead letters; send it back or drop it.",
    epilog=EXAMPLES,
    invoke_without_command=True,
)
app.command("redrive", epilog=REDRIVE_EXAMPLES)(redrive)
app.command("drop", epilog=DROP_EXAMPLES)(drop)


@app.callback()
def dead_letters(ctx: typer.Context, as_json: JsonFlag = False) -> None:
    if ctx.invoked_subcommand is None:
        _list(session_of(ctx, as_json), LetterFilter(state="dead"))


@app.command("list", epilog=EXAMPLES)
def list_dead_letters(
    ctx: typer.Context,
    job: JobOption = "",
    stage: StageOption = "",
    code: CodeOption = "",
    older_than: OlderOption = "",
    newer_than: NewerOption = "",
    state: Annotated[
        Literal["dead", "redriven", "dropped", "any"], typer.Option("--state", help="What was decided about them.")
    ] = "dead",
    tenant: TenantFlag = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=PAGE, help="At most so many, newest first.")] = 50,
    as_json: JsonFlag = False,
) -> None:
    """List dead letters: stage, code, document and reason."""
    chosen = LetterFilter(job, stage, code, older_than, newer_than, "" if state == "any" else state)
    _list(session_of(ctx, as_json), chosen, tenant, limit)


@app.command("show", epilog=EXAMPLES)
def show_dead_letter(
    ctx: typer.Context,
    dead_letter: Annotated[str, typer.Argument(metavar="ID", help="As `medkg dead-letters list` gives it.")],
    message: Annotated[bool, typer.Option("--message", help="Show the message too, as it was.")] = False,
    save: Annotated[
        Path | None, typer.Option("--save", metavar="FILE", help="Write the bytes of the message to a new file.")
    ] = None,
    tenant: TenantFlag = None,
    as_json: JsonFlag = False,
) -> None:
    """Show one dead letter with its chain of causes, its place in Kafka, and what was decided about it."""
    session = session_of(ctx, as_json)
    with session.client(tenant) as client:
        letter, raw = letter_of(client, dead_letter)
        kept = client.dead_message(dead_letter) if message or save is not None else None
    if as_json:
        session.emit({**raw, "as_it_was": kept.raw} if kept is not None and isinstance(raw, dict) else raw)
    else:
        session.show(_card(letter, session))
        if kept is not None and message:
            session.show(*_message(kept.value))
    if kept is not None and save is not None:
        written = _save(save, kept.value)
        session.show(Text(f"{written:,} bytes written to {clean(save)}"))


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


def _list(session: Session, chosen: LetterFilter, tenant: str | None = None, limit: int = 50) -> None:
    with session.client(tenant) as client:
        if chosen.job_id:
            chosen = replace(chosen, job_id=resolve_job(client, chosen.job_id, session.tenant(tenant)))
        answer = client.dead_letters(limit, **chosen.query())
    if session.as_json:
        session.emit(answer.raw)
        return
    letters = answer.value.dead_letters
    if not letters:
        session.show(Text("no dead letters" + ("" if chosen.is_empty else " that match"), "green"))
        return
    for letter in letters:
        session.show(_entry(letter, session))
    session.show(Text(f"{count(len(letters), 'dead letter')}; one of them whole: medkg dead-letters show ID", "dim"))


def _message(kept: DeadMessage) -> list[Text]:
    """A message for people: headers, and the beginning of its value, whatever is in it."""
    value = base64.b64decode(kept.value)
    lines = [
        Text.assemble((f"  {clean(name)} ", "dim"), clean(base64.b64decode(text).decode(errors="replace")))
        for name, text in kept.headers
    ]
    shown = clean(value[:_SHOWN_BYTES].decode(errors="backslashreplace"), keep_lines=True)
    lines.append(Text(shown))
    if len(value) > _SHOWN_BYTES:
        lines.append(Text(f"… {len(value) - _SHOWN_BYTES:,} more bytes: --save FILE", "dim"))
    return lines


def _save(path: Path, kept: DeadMessage) -> int:
    value = base64.b64decode(kept.value)
    try:
        with path.open("xb") as file:
            return file.write(value)
    except OSError as error:
        raise UsageProblem(f"writing {clean(path)}: {error.strerror}", hint="name a file that is not there") from error


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
        ("attempt", clean(letter.attempt) + (f", redriven {letter.redrive} times before" if letter.redrive else "")),
        ("counted", clean(letter.disposition)),
        ("worker", " ".join(filter(None, (clean(letter.worker), clean(letter.worker_version))))),
        ("message", _place(letter.position)),
        ("letter", _place(letter.letter)),
        ("when", f"{clean(letter.at)} ({ago(letter.at, session.clock.now())})"),
        (clean(letter.state), _decision(letter)),
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


def _decision(letter: DeadLetterEntry) -> str:
    decided = letter.decided
    if decided is None:
        return ""
    by = f" by {clean(decided.by)}" if decided.by else ""
    return f"{clean(decided.at)}{by}" + (f": {clean(decided.reason)}" if decided.reason else "")


def _place(position: Position | None) -> str:
    return f"{clean(position.topic)}[{position.partition}] @ {position.offset}" if position is not None else ""
