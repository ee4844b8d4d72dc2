"""`medkg submit`: ask the fleet to read something, through the gateway or straight through Kafka."""

from pathlib import Path
from typing import Annotated
from uuid import uuid4

import typer
from rich.text import Text

from medkg.cli.exits import Exit, UsageProblem
from medkg.cli.publishing import publish
from medkg.cli.selection import clinicaltrials_selection, files_selection, record_selection, submission_of
from medkg.cli.session import JsonFlag, Session, TenantFlag, session_of
from medkg.cli.terminal import clean
from medkg.cli.up import check_broker
from medkg.cli.watching import exit_code_of, watch_job
from medkg.contracts.jobs import SELECTIONS

EXAMPLES = """\
[bold]Examples[/bold]
  medkg submit --source files samples/trials samples/articles --wait
  medkg submit --source files 'trials/**/*.json' article.xml --pipeline auto
  medkg submit --source clinicaltrials --ids NCT01339377,NCT00004980 --wait
  medkg submit --source clinicaltrials --query 'herniated disc' --limit 50
  medkg submit --source unpaywall --ids 10.1371/journal.pone.0000000
  medkg submit --source files samples/trials samples/articles --wait --timeout 60 --json | tail -n 1
  medkg submit --source files samples/trials samples/articles --kafka localhost:9092

With --json the last line on standard output is one object: job_id, state, documents, completed, skipped, failed, \
rejected. Progress goes to standard error then."""


def submit(
    ctx: typer.Context,
    paths: Annotated[
        list[str] | None,
        typer.Argument(metavar="PATH", help="Files, folders and quoted glob patterns.", show_default=False),
    ] = None,
    source: Annotated[str, typer.Option("--source", metavar="NAME", help=f"One of {', '.join(SELECTIONS)}.")] = "files",
    ids: Annotated[
        list[str] | None,
        typer.Option("--ids", metavar="ID,ID…", help="Records by NCT or PMC number, DOI, CORE id.", show_default=False),
    ] = None,
    query: Annotated[
        str, typer.Option("--query", metavar="TEXT", help="Records by the query syntax of the source itself.")
    ] = "",
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="At most so many records.")] = None,
    pipeline: Annotated[
        str | None, typer.Option("--pipeline", metavar="NAME", help="Otherwise the source decides.")
    ] = None,
    tenant: TenantFlag = None,
    wait: Annotated[bool, typer.Option("--wait", help="Show the progress, and end when the job does.")] = False,
    timeout: Annotated[
        float | None, typer.Option("--timeout", metavar="S", min=0.1, help="Wait at most so many seconds.")
    ] = None,
    allow_failures: Annotated[
        bool, typer.Option("--allow-failures", help="With --wait: exit 0 though documents failed or were rejected.")
    ] = False,
    no_check: Annotated[
        bool, typer.Option("--no-check", help="The paths are on the fleet's machine, not on this one.")
    ] = False,
    kafka: Annotated[
        str | None, typer.Option("--kafka", metavar="HOST:PORT", help="Publish the job event to this broker itself.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Submit a job: files, studies of ClinicalTrials.gov, or articles of a source that knows where their PDF is."""
    session = session_of(ctx, as_json)
    if timeout is not None and not wait:
        raise UsageProblem("--timeout says how long to wait: add --wait")
    if source in SELECTIONS and source != "files":
        if paths:
            raise UsageProblem(f"--source {source} takes --ids or --query, no paths")
        select = clinicaltrials_selection if source == "clinicaltrials" else record_selection
        selection = select(ids or [], query, limit)
    elif ids or query or limit is not None:
        raise UsageProblem("--ids, --query and --limit need --source clinicaltrials, unpaywall, core or pmc-fulltext")
    else:
        selection = files_selection(paths or [], working_dir=Path.cwd(), check=not no_check)
    data = submission_of(tenant_id=session.tenant(tenant), source=source, selection=selection, pipeline=pipeline)
    job_id, state = _submit(session, data, kafka)
    if not wait:
        _report(session, job_id, state)
        return
    if not as_json:
        session.show(Text.assemble("job ", (job_id, "bold"), f" {state}"))
    with session.client(tenant) as client:
        job = watch_job(session, client, job_id, timeout_seconds=timeout, is_new=True)
    code = exit_code_of(job, allow_failures=allow_failures)
    if code is not Exit.OK:
        raise typer.Exit(code)


def _submit(session: Session, data: bytes, kafka: str | None) -> tuple[str, str]:
    """The job's id, and whether it is admitted or only submitted so far."""
    if kafka is not None:
        check_broker(kafka, "--kafka")
        return publish(kafka, data), "submitted"
    with session.client() as client:
        submitted = client.submit(data, uuid4().hex).value
    return clean(submitted.job_id), clean(submitted.state)


def _report(session: Session, job_id: str, state: str) -> None:
    if session.as_json:
        session.emit({"job_id": job_id, "state": state})
        return
    session.show(Text.assemble("job ", (job_id, "bold"), f" {state}"))
    session.show(Text(f"follow it with `medkg watch {job_id}`", "dim"), soft_wrap=True)
