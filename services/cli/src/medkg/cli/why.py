"""`medkg why`: on one screen, why a job or a document does not go on, and what would help."""

import re
from datetime import datetime
from typing import Annotated

import typer
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from medkg.cli.exits import UsageProblem
from medkg.cli.job_view import state_text
from medkg.cli.session import JsonFlag, Session, TenantFlag, session_of
from medkg.cli.terminal import ago, clean, count, duration, parse_time, short
from medkg.cli.watch import resolve_job
from medkg.cli.why_answers import Finding, Why

EXAMPLES = """\
[bold]Examples[/bold]
  medkg why 3f0c2a91                      a job, by the beginning of its id
  medkg why 7d1e… --json | jq .findings   a document, by its whole id
  medkg why                               the newest job"""

_WHOLE = re.compile(r"[0-9a-f]{32}")
_MARKS = {
    "dead_letter": ("✗", "red"),
    "refused": ("✗", "dim"),
    "lost": ("✗", "red"),
    "no_members": ("!", "yellow"),
    "breaker": ("‖", "yellow"),
}
_MOST = 12  # findings on one screen


def why(
    ctx: typer.Context,
    identity: Annotated[
        str, typer.Argument(metavar="JOB|DOCUMENT", help="A job (or the beginning of its id), or a document.")
    ] = "",
    job: Annotated[str, typer.Option("--job", metavar="JOB", help="Of a document: in this job.")] = "",
    tenant: TenantFlag = None,
    as_json: JsonFlag = False,
) -> None:
    """Explain what a job or a document waits for, since when, what would free it, and what can be done by hand."""
    session = session_of(ctx, as_json)
    wanted = identity.strip().lower()
    if len(wanted) > 32:
        raise UsageProblem(f"{clean(identity)!r} is neither the id of a job nor of a document")
    with session.client(tenant) as client:
        if not _WHOLE.fullmatch(wanted):
            wanted = resolve_job(client, wanted, session.tenant(tenant))
        job_id = resolve_job(client, job, session.tenant(tenant)) if job else ""
        answer = client.why(wanted, job_id)
    if as_json:
        session.emit(answer.raw)
    else:
        session.show(_screen(answer.value, session))


def _screen(found: Why, session: Session) -> RenderableType:
    now = session.clock.now()
    identity = found.job_id if found.subject == "job" else found.doc_id
    head = Text.assemble(f"{clean(found.subject)} ", (short(identity), "bold"), "  ", state_text(found.state))
    where = [clean(found.source_id), clean(found.stage) and f"at {clean(found.stage)}", clean(found.pipeline)]
    head.append("  " + "  ".join(part for part in where if part), "dim")
    parts: list[RenderableType] = [head]
    parts.extend(Padding(_finding(finding, now), (1, 0, 0, 0)) for finding in found.findings[:_MOST])
    if len(found.findings) > _MOST:
        parts.append(Text(f"and {len(found.findings) - _MOST} more: --json has them all", "dim"))
    if found.by_hand:
        parts.append(Padding(Text("done by hand", "dim"), (1, 0, 0, 0)))
        parts.extend(Padding(Text(clean(line)), (0, 0, 0, 2)) for line in found.by_hand)
    return Group(*parts)


def _finding(finding: Finding, now: datetime) -> Group:
    mark, style = _MARKS.get(finding.kind, ("●", "cyan"))
    head = Text.assemble((f"{mark} ", style))
    if finding.documents > 1:
        head.append(f"{count(finding.documents, 'document')}; of the oldest: ", "bold")
    head.append(clean(finding.sentence))
    rows = (
        ("since", ago(finding.since, now) if finding.since else ""),
        ("freed by", clean(finding.freed_by)),
        ("also waiting", clean(finding.others)),
        *(("tried" if number == 0 else "", clean(line)) for number, line in enumerate(finding.tried)),
        ("next", _next(finding, now)),
        ("by hand", clean(finding.command)),
    )
    lines = [Text.assemble((f"    {name:<13}", "dim"), value) for name, value in rows if value]
    return Group(head, *lines)


def _next(finding: Finding, now: datetime) -> str:
    at = parse_time(finding.next_at)
    action = clean(finding.next_action)
    if at is None:
        return action
    left = (at - now).total_seconds()
    when = f"in {duration(left)}" if left > 0 else "due now"
    return f"{action}, {when}" if action else when
