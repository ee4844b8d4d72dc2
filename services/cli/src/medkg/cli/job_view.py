"""A job on the terminal: the live display, its plain-line form for pipes, and the account at the end."""

from datetime import datetime

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from medkg.cli.answers import Counts, FailureCount, Job, JobDocument, Waiting
from medkg.cli.progress import JobProgress, StageProgress, expected_documents
from medkg.cli.terminal import clean, count, duration, parse_time, rate, short, snippet
from medkg.contracts.messages import Fault

STATE_STYLES = {
    "submitted": "yellow",
    "admitted": "cyan",
    "running": "cyan",
    "completed": "green",
    "completed_with_failures": "yellow",
    "failures": "yellow",
    "rejected": "red",
    "in_flight": "cyan",
    "skipped": "blue",
    "failed": "red",
}
_BAR = (6, 24)  # narrowest and widest
_BESIDE_BAR = 76  # columns of everything else in the live table
_REASONS = 5  # why documents failed: so many reasons are shown
_WAITS = {
    "page": ("held page", "held pages"),
    "gate": ("document at a gate", "documents at a gate"),
    "join": ("document at a join", "documents at a join"),
    "retry": ("retry", "retries"),
}


def state_text(state: str) -> Text:
    return Text(clean(state).replace("_", " "), STATE_STYLES.get(state, ""))


def live_view(job: Job | None, progress: JobProgress, now: datetime, spinner: Spinner, width: int) -> RenderableType:
    """The display while a job runs, for a terminal of ``width`` columns."""
    if job is None:
        spinner.update(text=Text("waiting for the gate-router to admit the job", "dim"))
        return spinner
    spinner.update(text=_headline(job, now))
    bar_width = max(_BAR[0], min(_BAR[1], width - _BESIDE_BAR))
    table = _table("stage", "", "done", "rate", "mean", "reused", "failed")
    for line in progress.stages(job):
        table.add_row(*_live_row(line, bar_width))
    parts: list[RenderableType] = [spinner, Padding(counts_text(job.counts, expected_documents(job)), (0, 0, 0, 2))]
    if job.stages:
        parts.append(Padding(table, (1, 0, 0, 2)))
    if job.waiting:
        waits = (Text("waiting  ", "yellow").append_text(waiting_text(wait, now)) for wait in job.waiting)
        parts.append(Padding(Group(*waits), (1, 0, 0, 2)))
    if job.failures:
        parts.append(Padding(failures_text(job), (1, 0, 0, 2)))
    left = progress.seconds_left(job)
    if left is not None:
        parts.append(Padding(Text(f"about {duration(max(left, 1.0))} left", "dim"), (1, 0, 0, 2)))
    return Group(*parts)


def plain_line(job: Job | None, progress: JobProgress, now: datetime) -> str:
    """The same on one line, for logs and pipes."""
    if job is None:
        return "waiting for the gate-router to admit the job"
    parts = [f"{_elapsed(job, now):>9}", clean(job.state).replace("_", " "), _counts_line(job)]
    speed, left = rate(progress.rate()), progress.seconds_left(job)
    if speed:
        parts.append(speed + (f", about {duration(max(left, 1.0))} left" if left is not None else ""))
    stages = " ".join(f"{clean(line.stage)} {line.done}" for line in progress.stages(job))
    waits = ", ".join(f"waiting: {waiting_text(wait, now).plain}" for wait in job.waiting)
    reasons = ", ".join(f"{failure.count:,} {clean(failure.code)}" for failure in job.failures[:_REASONS])
    return " | ".join(part for part in (*parts, stages, waits, reasons) if part)


def summary(job: Job, troubled: list[JobDocument], now: datetime) -> RenderableType:
    """The account of a job that has ended: counts, stages with their times, and what went wrong."""
    good = not job.has_failures
    head = Text.assemble(("✓ " if good else "✗ ", "bold green" if good else "bold red"), _headline(job, now))
    parts: list[RenderableType] = [head]
    parts.extend(Padding(fault_text(fault), (0, 0, 0, 2)) for fault in job.faults)
    if job.state == "rejected":
        return Group(*parts)
    parts.append(Padding(counts_text(job.counts, None), (0, 0, 0, 2)))
    if job.counts.documents and job.counts.skipped == job.counts.documents:
        parts.append(Padding(Text("all content was unchanged: nothing was computed or written again", "blue"), (0, 2)))
    if job.stages:
        table = _table("stage", "done", "reused", "failed", "mean")
        for line in JobProgress().stages(job):
            table.add_row(*_summary_row(line))
        parts.append(Padding(table, (1, 0, 0, 2)))
    if job.failures:
        parts.append(Padding(failures_text(job), (1, 0, 0, 2)))
    if troubled:
        parts.append(Padding(trouble_table(troubled, job), (1, 0, 0, 2)))
    return Group(*parts)


def failures_text(job: Job) -> RenderableType:
    """Why documents did not make it, the most frequent reason first: how many, the code, where, and what to do."""
    lines = [line for failure in job.failures[:_REASONS] for line in _failure_lines(failure)]
    if len(job.failures) > _REASONS:
        lines.append(Text(f"and {len(job.failures) - _REASONS:,} more reasons", "dim"))
    return Group(*lines)


def _failure_lines(failure: FailureCount) -> list[RenderableType]:
    head = Text.assemble((f"{failure.count:,} ", "bold red"), (clean(failure.code), "bold"))
    if failure.stage:
        head.append(f" at {clean(failure.stage)}", "dim")
    return [head, Padding(Text(clean(failure.remedy)), (0, 0, 0, 2))] if failure.remedy else [head]


def trouble_table(documents: list[JobDocument], job: Job) -> RenderableType:
    """Documents that did not make it, with the reason."""
    lines: list[RenderableType] = []
    for document in documents:
        failure = document.failure
        head = Text.assemble(
            ("✗ ", "red"),
            (clean(document.source_id) or short(document.doc_id), "bold"),
            "  ",
            state_text(document.state),
        )
        if failure is not None:
            head.append(f" at {clean(failure.stage)}: {clean(failure.code)}", "dim")
        lines.append(head)
        if failure is not None and failure.message:
            lines.append(Padding(Text(clean(failure.message)), (0, 0, 0, 2)))
    more = job.counts.failed + job.counts.rejected - len(documents)
    if more > 0:
        lines.append(Text(f"and {more:,} more: medkg dead-letters list --job {short(job.job_id)}", "dim"))
    return Group(*lines)


def fault_text(fault: Fault) -> Text:
    """One fault of a submission on one line: where, what, and what would do."""
    text = Text.assemble((clean(fault.pointer) or "/", "cyan"), "  ", snippet(clean(fault.message), (), 400))
    return text.append(f"  ({clean(fault.hint)})" if fault.hint else "", "dim")


def fault_json(fault: Fault) -> dict[str, str]:
    """The same for programs; what is empty is left out."""
    found = {"pointer": fault.pointer, "message": fault.message, "hint": fault.hint}
    return {name: value for name, value in found.items() if value or name == "pointer"}


def counts_text(counts: Counts, expected: int | None) -> Text:
    """``118 documents   114 completed   3 skipped   0 failed   1 rejected``."""
    known = count(counts.documents, "document")
    if expected is not None and expected > counts.documents:
        known = f"{counts.documents:,} of {count(expected, 'document')} read"
    text = Text.assemble((known, "bold"))
    for number, name, style in (
        (counts.completed, "completed", "green"),
        (counts.skipped, "skipped", "blue"),
        (counts.in_flight, "in flight", "cyan"),
        (counts.failed, "failed", "bold red"),
        (counts.rejected, "rejected", "bold red"),
    ):
        if number or name != "in flight":
            text.append("   ").append(f"{number:,} {name}", style if number else "dim")
    return text


def waiting_text(wait: Waiting, now: datetime) -> Text:
    """``3 held pages for 12 s  tenant default has 64 documents in flight``."""
    singular, plural = _WAITS.get(wait.kind, (clean(wait.kind), ""))
    text = Text(count(wait.count, singular, plural))
    since = parse_time(wait.oldest_since)
    if since is not None:
        text.append(f" for {duration((now - since).total_seconds())}", "dim")
    return text.append(f"  {clean(wait.detail)}" if wait.detail else "", "dim")


def job_seconds(job: Job, now: datetime) -> float | None:
    """From admission to the end, or to now."""
    began, ended = parse_time(job.admitted_at), parse_time(job.finished_at)
    return None if began is None else max(0.0, ((ended or now) - began).total_seconds())


def pipeline_name(job: Job) -> str:
    return f"{clean(job.pipeline.name)} {clean(job.pipeline.version)}" if job.pipeline is not None else ""


def _headline(job: Job, now: datetime) -> Text:
    text = Text.assemble("job ", (short(job.job_id), "bold"), "  ", state_text(job.state))
    elapsed = _elapsed(job, now)
    if elapsed:
        text.append(f" {'in' if job.is_finished else 'for'} {elapsed}")
    if job.source:
        text.append(f"  {clean(job.source)}", "dim")
    if job.pipeline is not None:
        text.append(f" through {pipeline_name(job)}", "dim")
    return text


def _elapsed(job: Job, now: datetime) -> str:
    seconds = job_seconds(job, now)
    return "" if seconds is None else duration(seconds)


def _counts_line(job: Job) -> str:
    expected = expected_documents(job)
    counts = job.counts
    known = (
        f"{counts.finished:,} of {expected:,} documents" if expected is not None else f"{counts.finished:,} documents"
    )
    rest = ((counts.skipped, "skipped"), (counts.failed, "failed"), (counts.rejected, "rejected"))
    notes = ", ".join(f"{number:,} {name}" for number, name in rest if number)
    return f"{known} ({notes})" if notes else known


def _live_row(line: StageProgress, bar_width: int) -> tuple[RenderableType, ...]:
    is_full = line.total is not None and line.done >= line.total > 0
    bar: RenderableType = ""
    if line.total:
        bar = ProgressBar(
            total=line.total, completed=line.done, width=bar_width, finished_style="green", complete_style="cyan"
        )
    done = f"{line.done:,}" if line.total is None else f"{line.done:,}/{line.total:,}"
    name = Text(clean(line.stage), "" if line.done or line.counts.started else "dim")
    speed = Text("" if is_full else rate(line.rate), "cyan")
    return (name, bar, Text(f"{done} {line.unit}s" if line.unit == "page" else done), speed, *_stage_figures(line))


def _summary_row(line: StageProgress) -> tuple[RenderableType, ...]:
    mean, reused, failed = _stage_figures(line)
    done = count(line.done, "page") if line.unit == "page" else f"{line.done:,}"
    return Text(clean(line.stage)), Text(done), reused, failed, mean


def _stage_figures(line: StageProgress) -> tuple[Text, Text, Text]:
    counts = line.counts
    mean = duration(counts.mean_ms / 1000) if counts.mean_ms is not None and counts.completed else ""
    failed = f"{counts.failed:,}" if counts.failed else ""
    if counts.retrying:
        failed = f"{failed} +{counts.retrying:,} retrying".strip()
    return (
        Text(mean, "dim"),
        Text(f"{counts.reused:,}" if counts.reused else "", "blue"),
        Text(failed, "red" if counts.failed else "yellow"),
    )


def _table(*columns: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for name in columns:
        left = name in {"stage", ""}
        table.add_column(name, justify="left" if left else "right", no_wrap=True)
    return table
