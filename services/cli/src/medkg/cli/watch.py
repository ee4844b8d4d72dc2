"""`medkg watch` and `medkg jobs`: the jobs of a tenant, and one of them as it goes."""

import re
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from medkg.cli.answers import Job
from medkg.cli.client import GatewayClient
from medkg.cli.exits import Exit, NotFound, UsageProblem
from medkg.cli.job_view import job_seconds, pipeline_name, state_text
from medkg.cli.session import JsonFlag, Session, TenantFlag, session_of
from medkg.cli.terminal import ago, clean, duration, short
from medkg.cli.watching import account_of, exit_code_of, watch_job

WATCH_EXAMPLES = """\
[bold]Examples[/bold]
  medkg watch                     the newest job
  medkg watch 3f0c2a91            the beginning of an id is enough for a recent job
  medkg watch 3f0c2a91 --json     one object for every look, the last one when the job ends
  medkg watch 3f0c2a91 | cat      plain lines where there is no terminal"""
JOBS_EXAMPLES = """\
[bold]Examples[/bold]
  medkg jobs
  medkg jobs --tenant oncology --limit 5
  medkg jobs --json | jq -r '.jobs[].job_id'"""

_RECENT = 100  # jobs among which the beginning of an id is looked up
_WIDE = 118  # columns that the whole table of jobs needs
_FULL_ID = re.compile(r"[0-9a-f]{32}")


def watch(
    ctx: typer.Context,
    job: Annotated[
        str, typer.Argument(metavar="JOB", help="Its id, or the beginning of it.", show_default="the newest")
    ] = "",
    tenant: TenantFlag = None,
    timeout: Annotated[
        float | None, typer.Option("--timeout", metavar="S", min=0.1, help="Watch at most so many seconds.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Watch a job until it ends: stages, rates, failures, what it waits for."""
    session = session_of(ctx, as_json)
    with session.client(tenant) as client:
        job_id = resolve_job(client, job, session.tenant(tenant))
        seen: list[str] = []

        def emit_change(current: Job) -> None:
            account = account_of(job_id, current)
            if as_json and not current.is_finished and seen[-1:] != [str(account)]:
                seen[:] = [str(account)]
                session.emit(account)

        ended = watch_job(session, client, job_id, timeout_seconds=timeout, each=emit_change)
    code = exit_code_of(ended)
    if code is not Exit.OK:
        raise typer.Exit(code)


def jobs(
    ctx: typer.Context,
    tenant: TenantFlag = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="At most so many, newest first.")] = 20,
    as_json: JsonFlag = False,
) -> None:
    """List jobs, newest first."""
    session = session_of(ctx, as_json)
    with session.client(tenant) as client:
        answer = client.jobs(session.tenant(tenant), limit)
    if as_json:
        session.emit(answer.raw)
    elif not answer.value.jobs:
        session.show(Text(f"no jobs of tenant {session.tenant(tenant)} yet: see `medkg submit --help`", "dim"))
    else:
        session.show(_table(session, answer.value.jobs))


def resolve_job(client: GatewayClient, text: str, tenant_id: str) -> str:
    """The full id of the job that is meant: the newest, one by its id, or a recent one by the beginning of its id.

    Raises:
        NotFound: there is none.
        UsageProblem: several recent jobs begin so.
    """
    wanted = text.strip().lower()
    if _FULL_ID.fullmatch(wanted):
        return wanted
    recent = [job.job_id for job in client.jobs(tenant_id, _RECENT).value.jobs]
    if not wanted:
        if not recent:
            raise NotFound(f"tenant {tenant_id} has no jobs", hint="submit one: `medkg submit --help`")
        return recent[0]
    found = [job_id for job_id in recent if job_id.startswith(wanted)]
    if not found:
        hint = "see `medkg jobs`; an older one needs its whole id"
        raise NotFound(f"no recent job of tenant {tenant_id} begins with {clean(text)!r}", hint=hint)
    if len(found) > 1:
        raise UsageProblem(f"{len(found)} jobs begin with {clean(text)!r}: {', '.join(map(short, found))}")
    return found[0]


def _table(session: Session, listed: tuple[Job, ...]) -> Table:
    """One line a job; where the terminal is narrow, what can be missed is left out."""
    is_wide, now = session.out.width >= _WIDE, session.clock.now()
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for name in ("job", "state", "source", *(("pipeline",) if is_wide else ())):
        table.add_column(name, no_wrap=True)
    for name in ("documents", *(("skipped",) if is_wide else ()), "failed", "took", "admitted"):
        table.add_column(name, justify="right", no_wrap=True)
    for job in listed:
        counts = job.counts
        trouble = counts.failed + counts.rejected
        done = f"{counts.finished:,}/{counts.documents:,}" if counts.in_flight else f"{counts.documents:,}"
        table.add_row(
            Text(short(job.job_id), "bold"),
            state_text("failures" if job.state == "completed_with_failures" else job.state),
            Text(clean(job.source)),
            *((Text(pipeline_name(job)),) if is_wide else ()),
            Text(done),
            *((Text(f"{counts.skipped:,}" if counts.skipped else "", "blue"),) if is_wide else ()),
            Text(f"{trouble:,}" if trouble else "", "red"),
            Text(duration(job_seconds(job, now)), "dim"),
            Text(ago(job.admitted_at, now), "dim"),
        )
    return table
