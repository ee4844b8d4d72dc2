"""`medkg demo`: an embedded fleet reads the samples, answers questions, and shows facts with where they were read."""

import contextlib
import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.padding import Padding
from rich.text import Text

from medkg.cli.answers import GraphClaim, GraphEntity, GraphResult, Job, SearchResult
from medkg.cli.client import GatewayClient
from medkg.cli.exits import Exit
from medkg.cli.fleet_process import Fleet, running_fleet
from medkg.cli.graph import claim_view
from medkg.cli.publishing import publish
from medkg.cli.samples import Question, read_samples
from medkg.cli.search import hit_view
from medkg.cli.selection import submission_of
from medkg.cli.session import JsonFlag, Session, session_of
from medkg.cli.terminal import clean, count, duration, short, terms_of
from medkg.cli.watching import account_of, watch_job
from medkg.contracts.stages import STAGE_CONTRACTS

EXAMPLES = """\
[bold]Examples[/bold]
  medkg demo                          in the checkout; a second time, unchanged content is found
  medkg demo --samples DIR            from elsewhere
  medkg demo --json | jq .questions   one object at the end; the rest goes to standard error

The samples folder has a job.json, the data of a job event, and may have a questions.json. The exit code is 0 only if
every document ended in the search index and in the graph."""

_JOB_SECONDS = 300.0
_LINES = 3  # shown of a passage
_PREDICATES = 4  # facts shown of an entity, each with another predicate
SINK_TYPES = frozenset(kind.value for kind, contract in STAGE_CONTRACTS.items() if contract.is_sink)


@dataclass(frozen=True, slots=True)
class Asked:
    """How a question fared: the rank of the first passage of an expected record, None where none came in time."""

    question: str
    rank: int | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the demo saw. ``missing`` are documents that are not in both stores, ``facts`` how many could be shown."""

    job: Job
    missing: list[str]
    asked: list[Asked]
    facts: int

    @property
    def is_good(self) -> bool:
        is_read = self.job.counts.documents > 0 and not self.job.has_failures and not self.missing
        return is_read and self.facts > 0 and (not self.asked or any(asked.rank is not None for asked in self.asked))


def demo(
    ctx: typer.Context,
    data: Annotated[Path, typer.Option("--data", metavar="DIR", help="Where the fleet keeps everything.")] = Path(
        ".medkg/demo"
    ),
    samples: Annotated[Path, typer.Option("--samples", metavar="DIR", help="What is read.")] = Path("samples"),
    as_json: JsonFlag = False,
) -> None:
    """Show it all once: a fleet, the samples, some questions, some facts."""
    session = session_of(ctx, as_json)
    submission, questions = read_samples(samples.absolute())
    clock, people = session.clock, session.people
    began = clock.monotonic()
    with contextlib.ExitStack() as stack:
        with people.status(Text("starting a fleet: embedded broker, stores, every service")):
            fleet = stack.enter_context(running_fleet(data.absolute(), samples.absolute(), clock))
        settings = session.settings.model_copy(update={"gateway": fleet.gateway_url})
        show = dataclasses.replace(session, settings=settings, out=people, as_json=False)
        _heading(show, "The fleet", f"up in {duration(clock.monotonic() - began)}")
        for name, value in (("gateway", fleet.gateway_url), ("Kafka", fleet.broker), ("log", str(fleet.log))):
            show.show(Text.assemble((f"  {name:<8} ", "dim"), clean(value)), soft_wrap=True)
        outcome = _tour(show, fleet, submission, questions)
        with people.status(Text("stopping the fleet")):
            stack.close()
    _conclude(show, outcome, clock.monotonic() - began)
    if as_json:
        session.emit(_account(outcome))
    if not outcome.is_good:
        raise typer.Exit(Exit.FAILED)


def sink_stages(topology: dict[str, Any]) -> frozenset[str]:
    """The stages of a pipeline that write to a store: the search index and the graph."""
    return frozenset(stage["name"] for stage in topology["stages"] if stage["type"] in SINK_TYPES)


def documents_outside_stores(client: GatewayClient, job: Job) -> list[str]:
    """The source ids of a job's documents that did not reach every store, by their own timelines."""
    if job.pipeline is None:
        return []
    sinks = sink_stages(client.pipeline(job.pipeline.name).value)
    missing, after = [], ""
    while True:
        page = client.documents(job.job_id, after=after).value
        for document in page.documents:
            timeline = client.document(job.job_id, document.doc_id).value.timeline
            done = {run.stage for run in timeline if run.state == "completed"}
            if document.state not in {"completed", "skipped"} or not sinks <= done:
                missing.append(clean(document.source_id) or short(document.doc_id))
        if not page.next:
            return missing
        after = page.next


def rank_of_expected(found: SearchResult, question: Question) -> int | None:
    """The rank of the first passage of a record that was expected, if it is early enough."""
    return next((h.rank for h in found.hits if h.source_id in question.expected and h.rank <= question.within), None)


def varied(claims: tuple[GraphClaim, ...], most: int = _PREDICATES) -> list[GraphClaim]:
    """A few claims of different predicates, those that lead to another entity first."""
    leading_on = sorted(claims, key=lambda claim: claim.object is None)
    return list({claim.predicate: claim for claim in reversed(leading_on)}.values())[::-1][:most]


def _tour(session: Session, fleet: Fleet, submission: dict[str, Any], questions: tuple[Question, ...]) -> Outcome:
    _heading(session, "Reading", "a job event on Kafka, then every stage a consumer of its own")
    job_id = publish(fleet.broker, submission_of(**submission))
    with session.client() as client:
        job = watch_job(session, client, job_id, timeout_seconds=_JOB_SECONDS, is_new=True, goes_on=False)
        missing = documents_outside_stores(client, job)
        asked = _ask(session, client, job, questions)
        facts = _show_facts(session, client, job, questions)
    return Outcome(job, missing, asked, facts)


def _ask(session: Session, client: GatewayClient, job: Job, questions: tuple[Question, ...]) -> list[Asked]:
    asked = []
    if questions:
        _heading(session, "Questions", "the best passage for each, with its document and score")
    for question in questions:
        found = client.search(question.question, job.tenant_id or "default", question.within).value
        rank = rank_of_expected(found, question)
        asked.append(Asked(question.question, rank))
        session.show(Text.assemble("\n? ", (clean(question.question), "bold cyan")))
        best = next((hit for hit in found.hits if hit.rank == rank), found.hits[0] if found.hits else None)
        if best is not None:
            session.show(hit_view(best, terms_of(question.question), session.out.width, lines=_LINES))
        if rank is None and question.expected:
            wanted = " or ".join(map(clean, question.expected))
            session.show(Text(f"    expected {wanted} among the first {question.within}", "yellow"))
    return asked


def _show_facts(session: Session, client: GatewayClient, job: Job, questions: tuple[Question, ...]) -> int:
    """One record's facts, then those of something it shares with other documents."""
    _heading(session, "Facts", "from the graph, each with the passage it was read from")
    tenant, shown = job.tenant_id or "default", 0
    records = [record for question in questions for record in question.expected]
    record = next((found for name in records if (found := _graph_of(client, name, tenant)).claims), None)
    if record is None:
        return 0
    shown += _print_facts(session, record, record.entities[0])
    neighbours = list(dict.fromkeys(claim.object.entity_id for claim in record.claims if claim.object is not None))
    shared = [_graph_of(client, name, tenant) for name in neighbours[:_PREDICATES]]
    best = max(
        (found for found in shared if found.entities), key=lambda found: found.entities[0].documents, default=None
    )
    if best is not None:
        shown += _print_facts(session, best, best.entities[0])
    return shown


def _graph_of(client: GatewayClient, name: str, tenant: str) -> GraphResult:
    found = client.graph(name, tenant).value
    if found.entities or ":" in name:
        return found
    scheme = "nct" if name.startswith("NCT") else "pmcid"
    return client.graph(f"{scheme}:{name}", tenant).value


def _print_facts(session: Session, found: GraphResult, entity: GraphEntity) -> int:
    head = Text.assemble("\n", (clean(entity.name), "bold cyan"), (f"  {clean(entity.type)}", "magenta"))
    session.show(head.append(f"  in {count(entity.documents, 'document')}", "dim"))
    facts = varied(found.claims)
    for claim in facts:
        session.show(Padding(Text(clean(claim.predicate).replace("_", " "), "magenta"), (0, 0, 0, 2)))
        session.show(Padding(claim_view(claim, {entity.entity_id}, passages=1), (0, 0, 0, 4)))
    return len(facts)


def _conclude(session: Session, outcome: Outcome, seconds: float) -> None:
    counts = outcome.job.counts
    good = outcome.is_good
    _heading(session, "Done" if good else "Not done", f"in {duration(seconds)}, start and stop included")
    rows = [(not outcome.missing and counts.documents > 0, f"{count(counts.documents, 'document')} in both stores")]
    if outcome.missing:
        named = ", ".join(outcome.missing[:10])
        rows = [(False, f"{len(outcome.missing)} of {count(counts.documents, 'document')} not in both stores: {named}")]
    if outcome.asked:
        answered = sum(asked.rank is not None for asked in outcome.asked)
        text = f"{answered} of {count(len(outcome.asked), 'question')} answered by the record that was expected"
        rows.append((answered > 0, text))
    rows.append((outcome.facts > 0, f"{count(outcome.facts, 'fact')} shown with where it was read"))
    if counts.documents and counts.skipped == counts.documents:
        rows.append((True, "all content was unchanged since the last time: nothing was computed or written again"))
    for is_good, text in rows:
        session.show(Text.assemble(("✓ ", "bold green") if is_good else ("✗ ", "bold red"), text))


def _account(outcome: Outcome) -> dict[str, Any]:
    asked = [{"question": asked.question, "rank": asked.rank} for asked in outcome.asked]
    found = account_of(outcome.job.job_id, outcome.job)
    return found | {"not_in_both_stores": outcome.missing, "questions": asked, "facts": outcome.facts}


def _heading(session: Session, title: str, detail: str) -> None:
    session.show(Text.assemble("\n", (title, "bold"), (f"  {detail}", "dim")))
