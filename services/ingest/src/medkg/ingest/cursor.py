"""Cursors: how a page says where the next one begins.

A cursor travels in a message, so whatever comes back is checked: its shape by the adapter's own struct, and that it
belongs to the selection it is used with.
"""

import base64
import binascii
import hashlib
from typing import TypeVar

import msgspec

from medkg.contracts.document import AdapterRequest
from medkg.contracts.errors import ContractError

MAX_CURSOR_CHARACTERS = 65_536  # a path of 4,096 bytes, every one escaped, in base64

_ENCODER = msgspec.json.Encoder(order="deterministic")


class Cursor(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What every cursor carries: the digest of the source and selection that it continues."""

    selection: str


C = TypeVar("C", bound=Cursor)


def selection_digest(request: AdapterRequest) -> str:
    """16 hexadecimal digits that stand for the source and selection of a request."""
    return hashlib.blake2b(_ENCODER.encode([request.source, request.selection]), digest_size=8).hexdigest()


def write_cursor(cursor: Cursor) -> str:
    """The cursor as an opaque word; the same cursor always gives the same word."""
    return base64.urlsafe_b64encode(_ENCODER.encode(cursor)).decode()


def read_cursor(request: AdapterRequest, kind: type[C]) -> C | None:
    """The cursor of a request, None where it asks for the first page.

    Raises:
        ContractError: it was not written by :func:`write_cursor` for this selection.
    """
    if not request.cursor:
        return None
    try:
        if len(request.cursor) > MAX_CURSOR_CHARACTERS:
            raise ValueError(f"{len(request.cursor)} characters are too many")
        cursor = msgspec.json.decode(base64.b64decode(request.cursor, altchars=b"-_", validate=True), type=kind)
    except (ValueError, binascii.Error, msgspec.MsgspecError, RecursionError) as error:
        raise ContractError(
            f"reading a page of source {request.source!r}: its cursor is not one of ours ({error}); "
            "submit the job again"
        ) from error
    if cursor.selection != selection_digest(request):
        raise ContractError(
            f"reading a page of source {request.source!r}: its cursor belongs to another selection; submit "
            "the job again"
        )
    return cursor
