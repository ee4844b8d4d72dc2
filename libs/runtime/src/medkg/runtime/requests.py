"""Reading a stage request, so that nothing that stands in it can harm whoever handles it."""

import re

import msgspec

from medkg.contracts.cloudevents import Cause, read_cause
from medkg.contracts.errors import ContractError
from medkg.contracts.messages import REQUEST_DECODER, StageRequest
from medkg.runtime.records import Record

# Names stand in paths, headers and rows: no separators of paths, no control characters, and short enough for an index.
_NAME = re.compile(r"[^\x00-\x20\x7f-\x9f/\\]{1,200}")
_NAMES = re.compile(r"(?:[^\x00-\x20\x7f-\x9f/\\]{1,200}\n){3}(?:[^\x00-\x20\x7f-\x9f/\\]{0,200}\n){2}")
_LARGEST = 2**53  # the greatest number that every JSON reader holds exactly
_NUMBERS = ("page", "attempt", "revision", "not_before_ms", "redrive")


def read_request(record: Record) -> tuple[Cause, StageRequest]:
    """The event and the data of a request.

    Raises:
        ContractError: no event in binary mode, or its data is no request, or one with a name or number out of bounds.
    """
    cause = read_cause(record.headers)
    try:
        request = REQUEST_DECODER.decode(record.value)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ContractError(f"reading a stage request: {error}") from error
    r = request
    if not _NAMES.fullmatch(f"{r.job_id}\n{r.tenant_id}\n{r.stage}\n{r.doc_id}\n{r.arrived_from}\n"):
        _name_the_fault(request)
    if not (
        0 <= r.page < _LARGEST
        and 0 <= r.attempt < _LARGEST
        and 0 <= r.revision < _LARGEST
        and 0 <= r.not_before_ms < _LARGEST
        and 0 <= r.redrive < _LARGEST
    ):
        fault = next(field for field in _NUMBERS if not 0 <= getattr(request, field) < _LARGEST)
        raise ContractError(f"reading a stage request: {fault} is out of range")
    return cause, request


def _name_the_fault(request: StageRequest) -> None:
    for field in ("job_id", "tenant_id", "stage", "doc_id", "arrived_from"):
        name = getattr(request, field)
        if not _NAME.fullmatch(name) and (name or field in {"job_id", "tenant_id", "stage"}):
            raise ContractError(
                f"reading a stage request: {field} {name[:80]!r} is not a name: 1 to 200 visible characters, "
                "without spaces and slashes"
            )
