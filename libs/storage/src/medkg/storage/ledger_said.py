"""What a stage event says, read as far as the ledger needs it and checked. Pure.

All events of a stage of a job begin with the same bytes: what it is about but for the document. They are read once and
remembered (:class:`Setting`); of each event is read what follows (:class:`StageSaid`). Attributes that no row holds
are passed over, whatever they are.
"""

import re
from dataclasses import dataclass
from functools import lru_cache

import msgspec

from medkg.contracts.messages import Failure, PageReport, PipelineRef
from medkg.contracts.stages import StageType
from medkg.storage.ledger_merge import SEPARATOR

MAX_NAME = 200  # characters; well under what an index of PostgreSQL takes
LARGEST = 2**53  # the greatest number that every JSON reader holds exactly

_NAME = re.compile(rf"[^\x00-\x20\x7f]{{1,{MAX_NAME}}}")
_LONGEST_SETTING = 2_000  # bytes: so that what is remembered stays small
_DOCUMENT = b',"doc_id":"'
# they run again with every job, and make nothing
_WITHOUT_WORK = {StageType.INGEST, StageType.VALIDATE, StageType.GATE}
_GATING = {StageType.DOWNLOAD, StageType.GATE}


class StageSaid(msgspec.Struct, gc=False):
    """Of a :class:`medkg.contracts.messages.StageEvent` what differs from document to document."""

    doc_id: str = ""
    attempt: int = 1
    redrive: int = 0
    worker: str = ""
    duration_ms: float = 0.0
    reused: bool = False
    next: tuple[str, ...] = ()
    finished_leaves: tuple[str, ...] = ()
    leaves: int = 0
    failure: Failure | None = None
    tolerated: bool = False
    page: PageReport | None = None


class _Head(msgspec.Struct):
    job_id: str
    tenant_id: str
    stage: str
    stage_type: str
    pipeline: PipelineRef
    revision: int


class _Whole(StageSaid, kw_only=True):
    job_id: str
    tenant_id: str
    stage: str
    stage_type: str
    pipeline: PipelineRef
    revision: int


@dataclass(frozen=True, slots=True, eq=False)
class Setting:
    """What is alike in all events of a stage of a job, checked. Compared by identity: two may say the same."""

    job_id: str
    stage: str
    stage_type: str
    tenant_id: str
    job: tuple[str, str, PipelineRef, int]  # with its tenant, pipeline and revision
    owned: list[object]  # tenant, pipeline's name and version of a document, and that there is one
    type_kept: str
    is_work: bool
    is_gating: bool  # may set a field that a gate waits for


def read_stage_event(data: bytes) -> tuple[Setting, StageSaid]:
    """The two halves of an event.

    Raises:
        msgspec.MsgspecError, RecursionError: it is not JSON of this shape.
        ValueError: a name or a number is one that no row can hold.
    """
    head, found, rest = data.partition(_DOCUMENT)
    if found and len(head) <= _LONGEST_SETTING:
        try:
            setting = _setting(head)
        except msgspec.MsgspecError:  # unusual: the attributes stand in another order
            pass
        else:
            said = _SAID.decode(b'{"doc_id":"' + rest)
            _check(said)
            return setting, said
    whole = _WHOLE.decode(data)
    _check(whole)
    return _checked(whole), whole


def clean(value: str, limit: int) -> str:
    """Text as it can be merged into a table (no NUL, no separator), cut to ``limit`` characters."""
    return value[:limit].replace("\x00", "\ufffd").replace(SEPARATOR, "\ufffd")


def check_pipeline(pipeline: PipelineRef) -> None:
    """Raises ValueError where a part of it is no name."""
    name("pipeline name", pipeline.name)
    name("pipeline version", pipeline.version)
    name("pipeline digest", pipeline.digest)


@lru_cache(maxsize=8_192)  # the events of a batch share most of their names
def name(what: str, value: str) -> str:
    """A name as it is. Raises ValueError where it is none; ``what`` begins the message."""
    if not _NAME.fullmatch(value):
        raise ValueError(f"{what} {value[:80]!r} is not a name of 1 to 200 visible characters without spaces")
    return value


def number(what: str, value: int) -> int:
    """A number as it is. Raises ValueError where it is negative or too large; ``what`` begins the message."""
    if not 0 <= value < LARGEST:
        raise ValueError(f"{what} {value} is not between 0 and 2^53")
    return value


@lru_cache(maxsize=1_024)
def _setting(head: bytes) -> Setting:
    return _checked(_HEAD.decode(head + b"}"))


def _checked(head: _Head | _Whole) -> Setting:
    name("job_id", head.job_id)
    name("tenant_id", head.tenant_id)
    name("stage", head.stage)
    check_pipeline(head.pipeline)
    number("revision", head.revision)
    return Setting(
        job_id=head.job_id,
        stage=head.stage,
        stage_type=head.stage_type,
        tenant_id=head.tenant_id,
        job=(head.job_id, head.tenant_id, head.pipeline, head.revision),
        owned=[head.tenant_id, head.pipeline.name, head.pipeline.version, True],
        type_kept=clean(head.stage_type, MAX_NAME),
        is_work=head.stage_type not in _WITHOUT_WORK,
        is_gating=head.stage_type in _GATING,
    )


def _check(said: StageSaid) -> None:
    if not (0 <= said.attempt < LARGEST and 0 <= said.redrive < LARGEST and 0 <= said.leaves < LARGEST):
        for what in ("attempt", "redrive", "leaves"):
            number(what, getattr(said, what))
    for leaf in said.finished_leaves:
        name("finished leaf", leaf)
    if said.doc_id:
        name("doc_id", said.doc_id)
    page = said.page
    if page is not None:
        number("page number", page.number)
        number("total", page.total or 0)
        for doc_id in (item.doc_id for items in (page.documents, page.refused) for item in items):
            name("doc_id", doc_id)


_HEAD = msgspec.json.Decoder(_Head)
_SAID = msgspec.json.Decoder(StageSaid)
_WHOLE = msgspec.json.Decoder(_Whole)
