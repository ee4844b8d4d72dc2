"""`medkg dead-letters redrive` and `drop`: what becomes of dead letters, decided by somebody, for a reason."""

import getpass
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import typer
from rich.text import Text

from medkg.cli.answers import DeadLetterEntry
from medkg.cli.client import GatewayClient
from medkg.cli.exits import CommandError, Exit, FleetUnreachable, UsageProblem
from medkg.cli.letter_filters import (
    CodeOption,
    JobOption,
    LetterFilter,
    NewerOption,
    OlderOption,
    StageOption,
    letter_of,
)
from medkg.cli.session import JsonFlag, Session, TenantFlag, session_of
from medkg.cli.terminal import clean, count
from medkg.cli.watch import resolve_job

REDRIVE_EXAMPLES = """\
[bold]Examples[/bold]
  medkg dead-letters redrive --stage embed --code resource_unavailable --dry-run
  medkg dead-letters redrive --job 3f0c2a91 --rate 20 --reason 'index was full'
  medkg dead-letters redrive 'medkg.parse.v1/2/118~5be0c1d2' --yes"""
DROP_EXAMPLES = """\
[bold]Examples[/bold]
  medkg dead-letters drop --code payload_malformed --older-than 30d --reason 'the source withdrew them'"""

_SHOWN = 8  # kinds of letters named before asking

Ids = Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="As `medkg dead-letters list` gives them.")]
AllFlag = Annotated[bool, typer.Option("--all", help="All that are dead: no id and no filter is needed.")]
LimitOption = Annotated[int, typer.Option("--limit", min=1, max=1_000_000, help="At most so many, newest first.")]
DryRunFlag = Annotated[bool, typer.Option("--dry-run", help="Show what would be done, and do nothing.")]
YesFlag = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
RateOption = Annotated[
    float, typer.Option("--rate", metavar="N", min=0.01, max=1_000, help="At most so many a second.")
]
ReasonOption = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; it stays on record.")]


def redrive(
    ctx: typer.Context,
    ids: Ids = None,
    job: JobOption = "",
    stage: StageOption = "",
    code: CodeOption = "",
    older_than: OlderOption = "",
    newer_than: NewerOption = "",
    everything: AllFlag = False,
    limit: LimitOption = 10_000,
    rate: RateOption = 50.0,
    reason: ReasonOption = "",
    dry_run: DryRunFlag = False,
    yes: YesFlag = False,
    tenant: TenantFlag = None,
    as_json: JsonFlag = False,
) -> None:
    """Send messages back to their topics. Documents go on as themselves; their attempts are counted anew."""
    wanted = (ids or [], job, LetterFilter("", stage, code, older_than, newer_than, "dead"), everything, limit)
    run = _Run(session_of(ctx, as_json), "redrive", tenant, rate, reason)
    run.decide(wanted, dry_run=dry_run, yes=yes)


def drop(
    ctx: typer.Context,
    ids: Ids = None,
    job: JobOption = "",
    stage: StageOption = "",
    code: CodeOption = "",
    older_than: OlderOption = "",
    newer_than: NewerOption = "",
    everything: AllFlag = False,
    limit: LimitOption = 10_000,
    rate: RateOption = 50.0,
    reason: ReasonOption = "",
    dry_run: DryRunFlag = False,
    yes: YesFlag = False,
    tenant: TenantFlag = None,
    as_json: JsonFlag = False,
) -> None:
    """Record that nobody will handle these messages. Nothing is removed from Kafka; they are no longer counted."""
    wanted = (ids or [], job, LetterFilter("", stage, code, older_than, newer_than, "dead"), everything, limit)
    run = _Run(session_of(ctx, as_json), "drop", tenant, rate, reason)
    run.decide(wanted, dry_run=dry_run, yes=yes)


_Wanted = tuple[list[str], str, LetterFilter, bool, int]
_DONE = {"redrive": "redriven", "drop": "dropped"}


@dataclass(slots=True)
class _Run:
    """One call of a command: what it did, and what it could not."""

    session: Session
    decision: str
    tenant: str | None
    rate: float
    reason: str
    done: list[str] = field(default_factory=list)
    passed_over: list[str] = field(default_factory=list)
    failed: list[dict[str, str]] = field(default_factory=list)

    def decide(self, wanted: _Wanted, *, dry_run: bool, yes: bool) -> None:
        """Find the letters, show them, ask, and do it.

        Raises:
            UsageProblem: no letters were named, or nobody answered.
        """
        with self.session.client(self.tenant) as client:
            letters = self._find(client, wanted)
            self._preview(letters, dry_run=dry_run)
            if letters and not dry_run:
                if not yes:
                    self._ask(len(letters))
                self._decide_all(client, letters)
        if self.session.as_json:
            self.session.emit(self._account(letters, dry_run=dry_run))
        if self.failed:
            raise typer.Exit(Exit.FAILED)

    def _find(self, client: GatewayClient, wanted: _Wanted) -> list[DeadLetterEntry]:
        ids, job, chosen, everything, limit = wanted
        if ids:
            if job or not chosen.is_empty or everything:
                raise UsageProblem("name letters by their ids, or by filters, not both")
            return [letter_of(client, letter_id)[0] for letter_id in ids]
        if job:
            job_id = resolve_job(client, job, self.session.tenant(self.tenant))
            chosen = LetterFilter(job_id, chosen.stage, chosen.code, chosen.older_than, chosen.newer_than, chosen.state)
        if chosen.is_empty and not everything:
            hint = "name ids, or filters such as --stage and --code; --all means all of them"
            raise UsageProblem(f"which dead letters are to be {_DONE[self.decision]}?", hint=hint)
        return list(chosen.letters(client, limit))

    def _preview(self, letters: Sequence[DeadLetterEntry], *, dry_run: bool) -> None:
        if not letters:
            self.session.show(Text("no dead letters that match", "green"))
            return
        kinds = Counter((clean(letter.stage) or "no stage", clean(letter.code)) for letter in letters)
        for (stage, code), number in kinds.most_common(_SHOWN):
            self.session.show(Text.assemble(f"  {number:>7,}  ", (code, "bold red"), f" at {stage}"))
        if len(kinds) > _SHOWN:
            self.session.show(Text(f"           and {count(len(kinds) - _SHOWN, 'other kind')}", "dim"))
        would = "would be" if dry_run else "are to be"
        self.session.show(Text(f"{count(len(letters), 'dead letter')} {would} {_DONE[self.decision]}"))

    def _ask(self, number: int) -> None:
        try:
            agreed = typer.confirm(f"{self.decision} {number:,}?", err=True)
        except typer.Abort as nobody:
            raise UsageProblem("nobody answered", hint="--yes does it without asking, --dry-run only shows") from nobody
        if not agreed:
            raise typer.Exit(Exit.OK)

    def _decide_all(self, client: GatewayClient, letters: Sequence[DeadLetterEntry]) -> None:
        clock, began = self.session.clock, self.session.clock.monotonic()
        for number, letter in enumerate(letters):
            ahead = number / self.rate - (clock.monotonic() - began)
            if ahead > 0:
                clock.sleep(ahead)
            self._decide_one(client, str(letter.id))
        text = Text(f"{count(len(self.done), 'dead letter')} {_DONE[self.decision]}", "green")
        if self.passed_over:
            text.append(f", {len(self.passed_over):,} had been decided about before", "dim")
        self.session.show(text)
        for fault in self.failed:
            self.session.show(Text.assemble(("✗ ", "red"), f"{fault['id']}: {fault['message']}"))

    def _decide_one(self, client: GatewayClient, letter_id: str) -> None:
        try:
            client.decide(self.decision, letter_id, _who(), self.reason)
        except FleetUnreachable as error:
            error.message = f"{error.message}; {len(self.done):,} were {_DONE[self.decision]} before that"
            raise
        except CommandError as error:
            if error.code == "already_decided":
                self.passed_over.append(letter_id)
            else:
                self.failed.append({"id": clean(letter_id), "code": clean(error.code), "message": clean(error.message)})
        else:
            self.done.append(letter_id)

    def _account(self, letters: Sequence[DeadLetterEntry], *, dry_run: bool) -> dict[str, Any]:
        if dry_run:
            return {"dry_run": True, "ids": [letter.id for letter in letters]}
        return {_DONE[self.decision]: self.done, "decided_before": self.passed_over, "failed": self.failed}


def _who() -> str:
    """Who decides, as this machine knows them."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in containers
        return ""
