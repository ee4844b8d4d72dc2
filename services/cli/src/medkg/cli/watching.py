"""Follow a job with the display that fits where the output goes, and report how it ended."""

from collections.abc import Callable
from typing import Any

import msgspec
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from medkg.cli.answers import Job, JobDocument
from medkg.cli.client import GatewayClient
from medkg.cli.exits import CommandError, Exit
from medkg.cli.follow import Follower
from medkg.cli.job_view import fault_json, live_view, plain_line, summary
from medkg.cli.progress import JobProgress
from medkg.cli.session import Session

PLAIN_SECONDS = 2.0  # between two lines where there is no terminal
_TROUBLED = 10  # documents named in the account at the end


def watch_job(
    session: Session,
    client: GatewayClient,
    job_id: str,
    *,
    timeout_seconds: float | None = None,
    is_new: bool = False,
    goes_on: bool = True,
    each: Callable[[Job], None] | None = None,
) -> Job:
    """Show a job until it ends, then its account. ``each`` is told of every look besides.

    ``is_new``: it was submitted a moment ago, and may not be known yet. ``goes_on``: it outlives an interrupted wait.

    With ``--json`` the display goes to standard error; what is known of the job is printed as JSON last, also when the
    wait is interrupted or times out.
    """
    follower = Follower(client, job_id, session.clock)
    try:
        job = _display(session, follower, timeout_seconds, is_new, each)
    except (KeyboardInterrupt, CommandError) as error:
        if session.as_json and (is_new or follower.last is not None):
            session.emit(account_of(job_id, follower.last))
        if goes_on and isinstance(error, KeyboardInterrupt):
            text = Text.assemble("stopped watching; the job goes on: ", (f"medkg watch {job_id}", "bold"))
            session.err.print(text, soft_wrap=True)
        raise
    session.show(summary(job, _troubled(session, client, job), session.clock.now()))
    if session.as_json:
        session.emit(account_of(job_id, job))
    return job


def exit_code_of(job: Job, *, allow_failures: bool = False) -> Exit:
    """How a command ends that waited for this job. A rejected job did nothing, so no flag excuses it."""
    failed = job.has_failures and not (allow_failures and job.state != "rejected")
    return Exit.FAILED if failed else Exit.OK


def account_of(job_id: str, job: Job | None) -> dict[str, Any]:
    """A job as the JSON object that `submit --wait --json` ends with."""
    if job is None:
        return {"job_id": job_id, "state": "submitted"}
    counts = job.counts
    return {
        "job_id": job.job_id,
        "state": job.state,
        "documents": counts.documents,
        "completed": counts.completed,
        "skipped": counts.skipped,
        "failed": counts.failed,
        "rejected": counts.rejected,
        "in_flight": counts.in_flight,
        "tenant_id": job.tenant_id,
        "source": job.source,
        "pipeline": job.pipeline and {"name": job.pipeline.name, "version": job.pipeline.version},
        "admitted_at": job.admitted_at,
        "finished_at": job.finished_at,
        "faults": [fault_json(fault) for fault in job.faults],
        "failures": [msgspec.to_builtins(failure) for failure in job.failures],
    }


def _display(
    session: Session,
    follower: Follower,
    timeout_seconds: float | None,
    is_new: bool,
    each: Callable[[Job], None] | None,
) -> Job:
    console, clock, progress = session.people, session.clock, JobProgress()

    def look(job: Job | None) -> None:
        if job is not None:
            progress.observe(job, clock.monotonic())
            if each is not None:
                each(job)

    if console.is_terminal and not console.is_dumb_terminal:
        spinner = Spinner("dots", style="cyan")
        with Live(console=console, transient=True, refresh_per_second=8) as live:

            def draw(job: Job | None) -> None:
                look(job)
                live.update(live_view(job, progress, clock.now(), spinner, console.width), refresh=True)

            return follower.run(draw, timeout_seconds=timeout_seconds, is_new=is_new)

    printed_at: float | None = None
    printed = ""

    def line(job: Job | None) -> None:
        nonlocal printed_at, printed
        look(job)
        text = plain_line(job, progress, clock.now())
        state = text.partition(" | ")[2] or text  # without the time, which always changes
        if job is not None and job.is_finished:
            return  # its account follows
        is_due = printed_at is None or clock.monotonic() - printed_at >= PLAIN_SECONDS
        if state != printed and is_due:
            print(text, file=console.file, flush=True)
            printed_at, printed = clock.monotonic(), state

    return follower.run(line, timeout_seconds=timeout_seconds, is_new=is_new)


def _troubled(session: Session, client: GatewayClient, job: Job) -> list[JobDocument]:
    """The first documents that failed or were rejected. The job's counts stand without them."""
    found: list[JobDocument] = []
    try:
        for state, number in (("failed", job.counts.failed), ("rejected", job.counts.rejected)):
            if number and len(found) < _TROUBLED:
                found.extend(client.documents(job.job_id, state, limit=_TROUBLED).value.documents)
    except CommandError as error:
        session.err.print(Text(f"cannot say which documents failed: {error.message}", "yellow"), soft_wrap=True)
    return found[:_TROUBLED]
