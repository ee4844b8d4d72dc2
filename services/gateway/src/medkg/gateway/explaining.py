"""Why something does not go on, in words: pure functions from what the ledger, the waits and Kafka say.

Each case becomes a :class:`Finding`: one sentence, since when, what would free it, what was tried, what happens next by
itself and when, and the command by which somebody can act.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from medkg.contracts.messages import BreakerChange, BreakerState
from medkg.storage.ledger_answers import DeadLetterAnswer, StageRun
from medkg.storage.waits_reader import Company, DocumentPlace, OperatorAction, WaitEntry

QUIET_SECONDS = 300.0  # after so long without a word a message that is in no topic counts as lost
_LAST = 5  # attempts and actions that are told


@dataclass(frozen=True, slots=True)
class Finding:
    """One reason. ``kind`` is stable: gate, retry, join, page, unread, breaker, no_members, backlog, working,
    dead_letter, refused, lost, late, ended, unknown."""

    kind: str
    sentence: str
    stage: str = ""
    since: datetime | None = None
    freed_by: str = ""
    others: str = ""
    tried: tuple[str, ...] = ()
    next_action: str = ""
    next_at: datetime | None = None
    command: str = ""
    documents: int = 1


@dataclass(frozen=True, slots=True)
class Flow:
    """How a topic is worked off: unread messages, and members of its group (None: nobody can say)."""

    topic: str
    group: str
    lag: int | None
    members: int | None
    breakers: tuple[BreakerChange, ...] = ()


def at_gate(entry: WaitEntry, company: Company, parser: Flow, now: datetime) -> Finding:
    """A document at a gate: for a file, with its place in the parser's queue and how the parser does."""
    if entry.reason and entry.reason not in {"restored", "redriven"}:
        sentence = f"waits at gate {entry.stage}: {entry.waits_for}; it could not be released: {entry.reason}"
    else:
        sentence = f"waits at gate {entry.stage} until {entry.waits_for}"
    tried: list[str] = []
    if entry.file_sha256:
        ahead = f"{company.files_ahead} files were asked for before it" if company.files_ahead else "it is next"
        asked = f"asked for {_ago(entry.asked_at, now)}; {ahead}" if entry.asked_at else "its file is not asked for yet"
        tried = [f"file {entry.file_sha256[:12]}: {asked}", *_health("the PDF parser", parser)]
    ends = {"fail": "the document fails", "skip": "the document ends here", "release": "it goes on without"}
    return Finding(
        kind="gate",
        sentence=sentence,
        stage=entry.stage,
        since=entry.since,
        freed_by=f"{entry.waits_for} in the ledger; it goes on at {entry.resume_stage}",
        others=_others(company, entry),
        tried=tuple(tried),
        next_action=ends.get(entry.on_timeout, "the gate runs out of patience"),
        next_at=entry.until,
        command=f"medkg gates release {entry.wait_id[:12]} --reason '…'   (or fail, extend)",
    )


def late(entry: WaitEntry) -> Finding:
    """A signal came after the gate had given up."""
    return Finding(
        kind="late",
        sentence=f"{entry.waits_for} came after gate {entry.stage} had run out of patience",
        stage=entry.stage,
        since=entry.late_at,
        freed_by=f"an operator: it would go on at {entry.resume_stage}",
        command=f"medkg gates release {entry.wait_id[:12]} --reason 'the signal came late'",
    )


def for_retry(entry: WaitEntry, runs: Sequence[StageRun]) -> Finding:
    """A retry that is not due yet."""
    return Finding(
        kind="retry",
        sentence=f"waits for attempt {entry.attempt} of {entry.stage}",
        stage=entry.stage,
        since=entry.since,
        freed_by="time",
        tried=attempts_of(runs, entry.stage),
        next_action=f"{entry.stage} is tried again",
        next_at=entry.until,
        command=f"medkg gates release {entry.wait_id[:12]} --reason 'try now'",
    )


def at_join(entries: Sequence[WaitEntry], branches: Sequence[str]) -> Finding:
    """Branches that have come to a join, and those that have not."""
    first = min(entries, key=lambda entry: entry.since)
    come = sorted({entry.arrived_from for entry in entries})
    missing = [name for name in branches if name not in come]
    named = ", ".join(missing) if missing else f"{first.needed - len(come)} of {first.needed} branches"
    return Finding(
        kind="join",
        sentence=f"waits before {first.stage} for {named}; {', '.join(come)} has come",
        stage=first.stage,
        since=first.since,
        freed_by=f"the end of {named}, whether it succeeds or fails",
        next_action=f"{first.stage} runs when all have come; where one fails, the wait ends with its reason",
        command=f"medkg gates release {first.wait_id[:12]} --reason 'go on without the others'",
    )


def for_room(entry: WaitEntry, under_way: int, pages: int) -> Finding:
    """A page that is held so that one tenant does not starve the others."""
    return Finding(
        kind="page",
        sentence=f"a page is held: {under_way} documents of the tenant are under way, and {pages} of its pages wait",
        stage=entry.stage,
        since=entry.since,
        freed_by="documents of the tenant that end",
        next_action="the page is read as soon as there is room",
        command="MEDKG_ROUTER_TENANT_DOCUMENTS raises the bound",
    )


def for_pipeline(entry: WaitEntry) -> Finding:
    """An arrival whose pinned pipeline cannot be found."""
    return Finding(
        kind="unread",
        sentence=f"waits at {entry.stage} for its pinned pipeline: {entry.reason or 'it was not found'}",
        stage=entry.stage,
        since=entry.since,
        freed_by="the topology in the blob store, or in the ledger",
        next_action="it is looked for again; after a day the document fails",
        next_at=entry.until,
        command="is MEDKG_BLOBS_URL the same for all services?",
    )


def under_way(stage: str, since: datetime | None, flow: Flow, runs: Sequence[StageRun], now: datetime) -> Finding:
    """A document in a topic or in a worker: or nowhere any more."""
    tried = attempts_of(runs, stage)
    held = next((each for each in flow.breakers if each.state is not BreakerState.CLOSED), None)
    if held is not None:
        at = datetime.fromtimestamp(held.until_ms / 1_000, now.tzinfo) if held.until_ms else None
        said = f"{stage} is paused: the breaker {held.name} is {held.state.replace('_', '-')}"
        return Finding(
            "breaker",
            said,
            stage,
            since,
            "one run that succeeds",
            _unread(flow),
            tried,
            "one document is let through to see",
            at,
            f"mend what {held.name.partition('@')[2] or stage} calls; nothing is lost meanwhile",
        )
    if flow.members == 0:
        said = f"nobody works off {flow.topic}: the group {flow.group} has no members"
        start = f"start medkg-{flow.group.removeprefix('medkg-')}"
        return Finding(
            "no_members", said, stage, since, "a replica that joins the group", _unread(flow), tried, "", None, start
        )
    is_quiet = since is not None and now - since > timedelta(seconds=QUIET_SECONDS)
    if flow.lag == 0 and is_quiet:
        said = (
            f"its message is lost: the ledger has it at {stage}, nothing was heard for long, and {flow.topic} is empty"
        )
        return Finding("lost", said, stage, since, "publishing it again", "", tried, "", None, "medkg ledger reconcile")
    if flow.lag:
        said = f"is in line for {stage}, or being worked on"
        return Finding("backlog", said, stage, since, "its turn", _unread(flow), tried, "it is taken in its turn")
    return Finding("working", f"{stage} is at work on it, or its message is on the way", stage, since, tried=tried)


def in_dead_letters(letter: DeadLetterAnswer, runs: Sequence[StageRun]) -> Finding:
    """A message that was given up."""
    return Finding(
        kind="dead_letter",
        sentence=f"failed at {letter.stage}: {letter.code}: {letter.message[:300]}",
        stage=letter.stage,
        since=letter.at,
        freed_by="mending the cause, and a redrive",
        tried=attempts_of(runs, letter.stage),
        command=f"medkg dead-letters redrive '{letter.id}'",
    )


def ended(place: DocumentPlace) -> Finding:
    """A document that has come to its end."""
    if place.failure_code and place.state in {"failed", "rejected"}:
        said = f"{place.state} at {place.failure_stage}: {place.failure_code}: {place.failure_message[:300]}"
        return Finding("ended", said, place.failure_stage, place.last_event_at)
    return Finding("ended", f"waits for nothing: it is {place.state}", place.current_stage, place.last_event_at)


def attempts_of(runs: Sequence[StageRun], stage: str) -> tuple[str, ...]:
    """The last attempts of a stage, in words."""
    told = []
    for run in [run for run in runs if run.stage == stage and run.state != "started"][-_LAST:]:
        why = f": {run.failure.code}: {run.failure.message[:160]}" if run.failure else ""
        told.append(f"attempt {run.attempt} {run.state}{why}")
    return tuple(told)


def by_hand(actions: Sequence[OperatorAction]) -> tuple[str, ...]:
    """What was done by hand, in words."""
    return tuple(
        f"{action.action} at {action.stage} by {action.who}, {action.at:%Y-%m-%d %H:%M} UTC: {action.why}"
        for action in actions[-_LAST:]
    )


def _health(who: str, flow: Flow) -> list[str]:
    said = [
        f"{who} is paused by its breaker {each.name}" for each in flow.breakers if each.state is not BreakerState.CLOSED
    ]
    if flow.members == 0:
        said.append(f"nobody reads {flow.topic}: the group {flow.group} has no members")
    elif flow.members:
        said.append(f"{who}: {flow.members} at work" + (f", {flow.lag} requests unread" if flow.lag else ""))
    return said


def _others(company: Company, entry: WaitEntry) -> str:
    parts = []
    if company.same_file:
        parts.append(f"{company.same_file} more for the same file")
    if company.same_stage:
        parts.append(f"{company.same_stage} more at {entry.stage}")
    return ", ".join(parts)


def _unread(flow: Flow) -> str:
    return f"{flow.lag} unread in {flow.topic}" if flow.lag else ""


def _ago(moment: datetime | None, now: datetime) -> str:
    seconds = int((now - moment).total_seconds()) if moment else 0
    return f"{seconds // 3600} h ago" if seconds >= 7_200 else f"{max(seconds, 0) // 60} min ago"
