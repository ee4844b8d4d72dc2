"""`medkg gates`: what waits, and releasing, failing or extending it by hand, with the reason on record."""

import getpass
import re
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from medkg.cli.client import GatewayClient
from medkg.cli.exits import NotFound, UsageProblem
from medkg.cli.session import JsonFlag, Session, TenantFlag, session_of
from medkg.cli.terminal import ago, clean, count, duration, parse_time, short
from medkg.cli.watch import resolve_job
from medkg.cli.why_answers import WaitEntry

EXAMPLES = """\
[bold]Examples[/bold]
  medkg gates
  medkg gates list --job 3f0c2a91 --kind gate
  medkg gates list --late
  medkg gates release 5be0c1d2 --reason 'the publisher sent the text'
  medkg gates extend --job 3f0c2a91 --stage pdf_gate --by 2d --reason 'the parser is being moved'
  medkg gates fail 5be0c1d2 --reason 'withdrawn'"""

_MOST = 1_000  # waits among which one is looked up by the beginning of its id
_DURATION = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,3})?)(s|m|h|d)")
_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}

app = typer.Typer(
    help="List what waits; release, fail or extend it by hand.", epilog=EXAMPLES, invoke_without_command=True
)

Ids = Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="As `medkg gates list` gives them.")]
JobOption = Annotated[str, typer.Option("--job", metavar="JOB", help="Of this job, by the beginning of its id.")]
StageOption = Annotated[str, typer.Option("--stage", metavar="NAME", help="At this stage or gate.")]
KindOption = Annotated[str, typer.Option("--kind", metavar="KIND", help="gate, join, retry, page or unread.")]
ReasonOption = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; it stays on record.")]
LimitOption = Annotated[int, typer.Option("--limit", min=1, max=_MOST, help="At most so many, oldest first.")]


@app.callback()
def gates(ctx: typer.Context, as_json: JsonFlag = False) -> None:
    if ctx.invoked_subcommand is None:
        _list(session_of(ctx, as_json), None, {}, 50)


@app.command("list", epilog=EXAMPLES)
def list_gates(
    ctx: typer.Context,
    job: JobOption = "",
    stage: StageOption = "",
    kind: KindOption = "",
    late: Annotated[bool, typer.Option("--late", help="What gave up, and whose condition came true since.")] = False,
    tenant: TenantFlag = None,
    limit: LimitOption = 50,
    as_json: JsonFlag = False,
) -> None:
    """List what waits, oldest first."""
    session = session_of(ctx, as_json)
    asked = {"stage": stage, "kind": kind, "late": "true" if late else "", "job": job}
    _list(session, tenant, asked, limit)


@app.command("release", epilog=EXAMPLES)
def release(
    ctx: typer.Context,
    ids: Ids = None,
    reason: ReasonOption = "",
    job: JobOption = "",
    stage: StageOption = "",
    tenant: TenantFlag = None,
    as_json: JsonFlag = False,
) -> None:
    """Let documents go on without what they wait for; a gate that gave up, by its id, too."""
    _decide(session_of(ctx, as_json), tenant, "release", ids, job, stage, reason)


@app.command("fail", epilog=EXAMPLES)
def fail(
    ctx: typer.Context,
    ids: Ids = None,
    reason: ReasonOption = "",
    job: JobOption = "",
    stage: StageOption = "",
    tenant: TenantFlag = None,
    as_json: JsonFlag = False,
) -> None:
    """Give documents up; they become dead letters with your reason, and can be redriven."""
    _decide(session_of(ctx, as_json), tenant, "fail", ids, job, stage, reason)


@app.command("extend", epilog=EXAMPLES)
def extend(
    ctx: typer.Context,
    ids: Ids = None,
    by: Annotated[str, typer.Option("--by", metavar="TIME", help="How much longer: 90s, 30m, 12h or 7d.")] = "24h",
    reason: ReasonOption = "",
    job: JobOption = "",
    stage: StageOption = "",
    tenant: TenantFlag = None,
    as_json: JsonFlag = False,
) -> None:
    """Give a gate more time, or put a retry off."""
    _decide(session_of(ctx, as_json), tenant, "extend", ids, job, stage, reason, seconds=_seconds(by))


def _list(session: Session, tenant: str | None, asked: dict[str, str], limit: int) -> None:
    with session.client(tenant) as client:
        job = asked.pop("job", "")
        job_id = resolve_job(client, job, session.tenant(tenant)) if job else ""
        answer = client.gates(limit, job_id=job_id, **asked)
    if session.as_json:
        session.emit(answer.raw)
    elif not answer.value.waits:
        session.show(Text("nothing waits" + (" that matches" if any(asked.values()) or job else ""), "green"))
    else:
        session.show(_table(answer.value.waits, session))
        session.show(Text("more of one: medkg why DOCUMENT; by hand: medkg gates release|fail|extend ID", "dim"))


def _decide(
    session: Session,
    tenant: str | None,
    action: str,
    ids: list[str] | None,
    job: str,
    stage: str,
    reason: str,
    *,
    seconds: float = 0.0,
) -> None:
    if not reason.strip():
        raise UsageProblem(f"say why: medkg gates {action} … --reason 'TEXT'; it stays on record")
    if not ids and not job:
        raise UsageProblem(f"name what to {action}: ids as `medkg gates list` gives them, or --job JOB")
    with session.client(tenant) as client:
        job_id = resolve_job(client, job, session.tenant(tenant)) if job else ""
        body: dict[str, Any] = {"action": action, "actor": getpass.getuser(), "reason": reason.strip()}
        body |= {"job_id": job_id, "stage": stage, "wait_ids": _whole(client, ids or []), "seconds": seconds}
        answer = client.decide_gates(body)
    if session.as_json:
        session.emit(answer.raw)
        return
    done = {"release": "released", "fail": "failed", "extend": "extended"}[action]
    session.show(Text.assemble(("✓ ", "green"), f"{count(len(answer.value.decided), 'wait')} {done}"))


def _whole(client: GatewayClient, ids: list[str]) -> list[str]:
    """Whole ids of waits, from their beginnings.

    Raises:
        NotFound: none begins so.
        UsageProblem: several do.
    """
    wanted = [text.strip().lower() for text in ids]
    if all(len(text) == 32 for text in wanted):
        return wanted
    known = [entry.wait_id for late in ("", "true") for entry in client.gates(_MOST, late=late).value.waits]
    whole = []
    for text in wanted:
        found = sorted({identity for identity in known if text and identity.startswith(text)})
        if not found:
            raise NotFound(f"nothing that waits has an id that begins with {clean(text)!r}", hint="see `medkg gates`")
        if len(found) > 1:
            raise UsageProblem(f"{len(found)} waits begin with {clean(text)!r}: {', '.join(map(short, found))}")
        whole.append(found[0])
    return whole


def _seconds(text: str) -> float:
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise UsageProblem(f"{clean(text)!r} is no time; write 90s, 30m, 12h or 7d")
    return float(match[1]) * _UNITS[match[2]]


def _table(listed: tuple[WaitEntry, ...], session: Session) -> Table:
    now = session.clock.now()
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for name in ("id", "kind", "document", "at", "waits for", "since", "until"):
        table.add_column(name, no_wrap=name != "waits for")
    for entry in listed:
        until = parse_time(entry.until)
        left = duration((until - now).total_seconds()) if until is not None and until > now else ""
        waits_for = clean(entry.waits_for)
        if entry.late_at:
            waits_for += f" (came {ago(entry.late_at, now)})"
        table.add_row(
            Text(short(entry.wait_id), "bold"),
            Text(clean(entry.kind)),
            Text(clean(entry.source_id) or short(entry.doc_id)),
            Text(clean(entry.stage)),
            Text(waits_for),
            Text(ago(entry.since, now), "dim"),
            Text(f"{left}, then {clean(entry.on_timeout)}" if left and entry.on_timeout else left, "dim"),
        )
    return table
