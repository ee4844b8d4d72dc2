"""What the gateway answers about waiting, as the command line reads it."""

import msgspec


class Finding(msgspec.Struct, frozen=True):
    """One reason why something does not go on."""

    kind: str
    sentence: str
    stage: str | None = ""
    since: str | None = None
    freed_by: str | None = ""
    others: str | None = ""
    tried: tuple[str, ...] = ()
    next_action: str | None = ""
    next_at: str | None = None
    command: str | None = ""
    documents: int = 1


class Why(msgspec.Struct, frozen=True):
    """Of a job or a document: where it is, and why it does not go on."""

    subject: str
    job_id: str
    state: str
    doc_id: str | None = ""
    source_id: str | None = ""
    stage: str | None = ""
    pipeline: str | None = ""
    findings: tuple[Finding, ...] = ()
    by_hand: tuple[str, ...] = ()
    now: str | None = None


class WaitEntry(msgspec.Struct, frozen=True):
    """Something that waits."""

    wait_id: str
    kind: str
    job_id: str
    doc_id: str | None = ""
    stage: str | None = ""
    since: str | None = None
    until: str | None = None
    waits_for: str | None = ""
    on_timeout: str | None = ""
    late_at: str | None = None
    reason: str | None = ""
    source_id: str | None = ""


class WaitList(msgspec.Struct, frozen=True):
    waits: tuple[WaitEntry, ...] = ()


class Decided(msgspec.Struct, frozen=True):
    wait_id: str
    job_id: str
    doc_id: str | None = ""
    stage: str | None = ""
    until: str | None = None


class GateDecision(msgspec.Struct, frozen=True):
    action: str
    decided: tuple[Decided, ...] = ()
