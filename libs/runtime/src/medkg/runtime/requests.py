"""Reading a stage request, so that nothing that stands in it can harm whoever handles it."""

import re

import msgspec

from medkg.contracts.cloudevents import Envelope, read_envelope
from medkg.contracts.errors import ContractError
from medkg.contracts.messages import REQUEST_DECODER, StageRequest
from medkg.runtime.records import Record

# Names stand in paths, headers and rows: no separators of paths, no control characters, and short enough for an index.
_NAME = re.compile(r"[^\x00-\x20\x7f-\x9f/\\]{1,200}")
_LARGEST = 2**53  # the greatest number that every JSON reader holds exactly


def read_request(record: Record) -> tuple[Envelope, StageRequest]:
    """The envelope and the data of a request.

    Raises:
        ContractError: no event in binary mode, or its data is no request, or one with a name or number out of bounds.
    """
    envelope = read_envelope(record.headers)
    try:
        request = REQUEST_DECODER.decode(record.value)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ContractError(f"reading a stage request: {error}") from error
    for field in ("job_id", "tenant_id", "stage"):
        _check_name(field, getattr(request, field))
    if request.doc_id:
        _check_name("doc_id", request.doc_id)
    if request.arrived_from:
        _check_name("arrived_from", request.arrived_from)
    for field in ("page", "attempt", "revision"):
        if not 0 <= getattr(request, field) < _LARGEST:
            raise ContractError(f"reading a stage request: {field} is out of range")
    return envelope, request


def _check_name(field: str, name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ContractError(
            f"reading a stage request: {field} {name[:80]!r} is not a name: 1 to 200 visible characters, "
            "without spaces and slashes"
        )
