"""The door: what a client may submit. Strict, and every fault is named at once with its JSON Pointer."""

import json
import re
from collections import Counter
from collections.abc import Mapping
from difflib import get_close_matches
from types import MappingProxyType
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from medkg.contracts.messages import Fault

MAX_JOB_EVENT_BYTES = 262_144  # a job names what to read; it never carries documents
MAX_DEPTH = 16  # nesting of the data of a job event
MAX_FAULTS = 100  # a rejection names so many; it has to fit into a message too
MAX_SHOWN = 512  # characters of a pointer or a message; both may quote the client's own text

Name = Annotated[str, Field(pattern=r"^[a-z][a-z-]{0,62}$")]
TenantId = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
PathText = Annotated[str, Field(min_length=1, max_length=4096, pattern=r"^[^\x00-\x1f\x7f]+$")]
Doi = Annotated[str, Field(max_length=300, pattern=r"^10\.[0-9]{4,9}(?:\.[0-9]+)*/[!-~]+$")]  # ISO 26324, in ASCII
QueryText = Annotated[str, Field(max_length=2_000, pattern=r"^[^\x00-\x1f\x7f]*$")]

_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_UNWRITABLE = re.compile(r"[\x00\ud800-\udfff]")  # PostgreSQL takes no NUL, UTF-8 no half of a surrogate pair


_Model = TypeVar("_Model", bound=BaseModel)


class _Door(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class FilesSelection(_Door):
    """Files, folders and glob patterns that the ingest service can read. Folders are walked, in sorted order."""

    paths: Annotated[list[PathText], Field(min_length=1, max_length=10_000)]


class ClinicalTrialsSelection(_Door):
    """Studies of ClinicalTrials.gov (API v2): by NCT number, or by a query in its own syntax."""

    ids: Annotated[list[Annotated[str, Field(pattern=r"^NCT[0-9]{8}$")]], Field(max_length=10_000)] = []
    query: QueryText = ""
    limit: Annotated[int, Field(ge=1, le=1_000_000)] | None = None

    @model_validator(mode="after")
    def _one_of(self) -> "ClinicalTrialsSelection":
        if bool(self.ids) == bool(self.query.strip()):
            raise PydanticCustomError("one_of", "give either ids or query")
        return self


class UnpaywallSelection(_Door):
    """Articles by DOI; Unpaywall knows where an open copy of each may be had."""

    ids: Annotated[list[Doi], Field(min_length=1, max_length=10_000)]


class CoreSelection(_Door):
    """Works of CORE: by its own numbers, or by a query in its own syntax. CORE gives the first 10,000 of a query."""

    ids: Annotated[list[Annotated[int, Field(ge=1, le=10**12)]], Field(max_length=10_000)] = []
    query: QueryText = ""
    limit: Annotated[int, Field(ge=1, le=10_000)] | None = None

    @model_validator(mode="after")
    def _one_of(self) -> "CoreSelection":
        if bool(self.ids) == bool(self.query.strip()):
            raise PydanticCustomError("one_of", "give either ids or query")
        return self


class PmcFulltextSelection(_Door):
    """Articles of PubMed Central by number: those of its open-access subset and its author manuscripts."""

    ids: Annotated[list[Annotated[str, Field(pattern=r"^PMC[1-9][0-9]{0,9}$")]], Field(min_length=1, max_length=10_000)]


SELECTIONS: Mapping[str, type[BaseModel]] = MappingProxyType(
    {
        "files": FilesSelection,
        "clinicaltrials": ClinicalTrialsSelection,
        "unpaywall": UnpaywallSelection,
        "core": CoreSelection,
        "pmc-fulltext": PmcFulltextSelection,
    }
)


class JobSubmission(_Door):
    """Data of ``org.medicalkg.job.submitted``. Without ``pipeline`` the source decides which one is used.

    What ``selection`` may hold depends on the source, see :data:`SELECTIONS` for medkg's own.
    """

    tenant_id: TenantId
    source: Name
    selection: dict[str, Any]
    pipeline: Annotated[str, Field(pattern=r"^[a-z-]{1,63}$")] | None = None
    pipeline_version: Annotated[str, Field(pattern=r"^[0-9]{1,9}\.[0-9]{1,9}$")] | None = None
    kind: Literal["documents"] = "documents"

    @model_validator(mode="after")
    def _version_of_something(self) -> "JobSubmission":
        if self.pipeline_version is not None and self.pipeline is None:
            raise PydanticCustomError("version_without_pipeline", "pipeline_version is given without a pipeline")
        return self


def check_submission(
    data: bytes, selections: Mapping[str, type[BaseModel]] = SELECTIONS
) -> tuple[JobSubmission | None, tuple[Fault, ...]]:
    """Read the data of a job event: the submission, or all that is wrong with it.

    ``selections`` are the sources that may be named, each with the model of what it lets a job select.

    Never raises: whatever the bytes are, the answer is a submission or a list of at most :data:`MAX_FAULTS` faults. No
    text of the answer holds control characters or anything else that UTF-8 or a database cannot take.
    """
    submission, faults = _check(data, selections)
    if len(faults) > MAX_FAULTS:
        left_out = len(faults) - MAX_FAULTS + 1
        faults = [*faults[: MAX_FAULTS - 1], Fault("", f"{left_out} more faults are not listed")]
    return submission, tuple(Fault(_shown(f.pointer), _shown(f.message), _shown(f.hint)) for f in faults)


def _check(data: bytes, selections: Mapping[str, type[BaseModel]]) -> tuple[JobSubmission | None, list[Fault]]:
    if len(data) > MAX_JOB_EVENT_BYTES:
        return None, [Fault("", f"{len(data)} bytes are over the limit of {MAX_JOB_EVENT_BYTES} for a job event")]
    repeated: list[str] = []
    try:
        value = _read_json(data, repeated)
    except RecursionError:
        return None, [Fault("", f"nested deeper than {MAX_DEPTH} levels")]
    except ValueError as error:
        return None, [Fault("", f"not JSON: {error}")]
    if not isinstance(value, dict):
        return None, [Fault("", f"expected a JSON object, found {_JSON_NAMES[type(value)]}")]
    if _is_too_deep(value):
        return None, [Fault("", f"nested deeper than {MAX_DEPTH} levels")]
    faults = [Fault("", f"the field {name!r} is given more than once in one object") for name in repeated]
    faults += _faults_in_text(value)
    named = {fault.pointer for fault in faults} - {""}
    submission, wrong = _validated(JobSubmission, value, "")
    selection = value.get("selection")
    source = value.get("source")
    if isinstance(source, str) and source in selections and isinstance(selection, dict):
        wrong += _validated(selections[source], selection, "/selection")[1]
    elif isinstance(source, str) and source not in selections and all(fault.pointer != "/source" for fault in wrong):
        wrong.append(Fault("/source", f"unknown source {source!r}", _known(source, sorted(selections))))
    faults += [fault for fault in wrong if fault.pointer not in named]
    return (None, faults) if faults else (submission, [])


_JSON_NAMES: Mapping[type, str] = MappingProxyType(
    {list: "an array", str: "text", int: "a number", float: "a number", bool: "true or false", type(None): "null"}
)


def _read_json(data: bytes, repeated: list[str]) -> object:
    """RFC 8259 without what Python's reader allows beyond it. Names given twice in one object go into ``repeated``.

    Raises:
        ValueError: not JSON, not UTF-8, or a number that no field takes.
        RecursionError: nested too deep to be read at all.
    """

    def pairs(items: list[tuple[str, object]]) -> dict[str, object]:
        found = dict(items)
        if len(found) < len(items):
            repeated.extend(name for name, count in Counter(name for name, _ in items).items() if count > 1)
        return found

    def constant(text: str) -> object:
        raise ValueError(f"{text} is not a JSON number")

    def integer(text: str) -> int:
        if len(text) > 20:  # the longest number of 64 bits
            raise ValueError(f"a number of {len(text)} digits is too long")
        return int(text)

    def real(text: str) -> float:
        number = float(text)
        if number in (float("inf"), float("-inf")):
            raise ValueError("a number is too large")
        return number

    text = data.decode("utf-8")
    return json.loads(text, object_pairs_hook=pairs, parse_constant=constant, parse_int=integer, parse_float=real)


def _is_too_deep(value: object) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [child for node in level for child in _children(node).values()]
    return any(isinstance(node, dict | list) for node in level)


def _faults_in_text(value: object) -> list[Fault]:
    """Text that cannot be written as UTF-8, or that no database takes; at most one more than MAX_FAULTS."""
    faults: list[Fault] = []
    # The way to a node is a chain of (way to its parent, its own part): pointers are only written out for faults.
    level: list[tuple[_Way, object]] = [(None, value)]
    while level:
        below: list[tuple[_Way, object]] = []
        for way, node in level:
            below.extend(((way, part), child) for part, child in _children(node).items())
            own_name = way[1] if way else ""
            is_at_fault = any(isinstance(text, str) and _UNWRITABLE.search(text) for text in (own_name, node))
            if is_at_fault and len(faults) <= MAX_FAULTS:
                faults.append(Fault(_pointer(way), "holds NUL or half of a surrogate pair, which cannot be stored"))
        level = below
    return faults


_Way = tuple[Any, str | int] | None


def _pointer(way: _Way) -> str:
    parts: list[str] = []
    while way:
        parts.append(f"/{_escape(way[1])}")
        way = way[0]
    return "".join(reversed(parts))


def _children(node: object) -> Mapping[Any, object]:
    if isinstance(node, dict):
        return node
    return dict(enumerate(node)) if isinstance(node, list) else {}


def _validated(model: type[_Model], value: object, at: str) -> tuple[_Model | None, list[Fault]]:
    try:
        return model.model_validate(value), []
    except ValidationError as error:
        return None, [
            Fault(at + "".join(f"/{_escape(part)}" for part in detail["loc"]), detail["msg"])
            for detail in error.errors(include_url=False, include_context=False, include_input=False)
            if detail["type"] != "string_unicode"  # already named, with its place, by _faults_in_text
        ]


def _known(wanted: str, names: list[str]) -> str:
    close = get_close_matches(wanted[:64], names, n=1)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(names)}"


def _escape(part: str | int) -> str:
    return str(part).replace("~", "~0").replace("/", "~1")  # RFC 6901, section 3


def _shown(text: str) -> str:
    """Text for people, at most MAX_SHOWN characters, with what is not printable written as an escape."""
    short = text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 1]}…"
    return _UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", short)
