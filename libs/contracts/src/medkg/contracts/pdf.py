"""What the gate-router and a PDF parser say to each other: one file to be read, and the document it became.

A parser reads :class:`PdfRequested` from ``mineru.queue.v1``, stores the document it makes in the blob store and says
so in the ledger (:mod:`medkg.storage.parsed_files`). The document of a *file* belongs to nobody: its ``doc_id`` is
empty. Several documents may wait for the same file; each that goes on with it lends it its own identity
(:func:`adopted`).
"""

import re

import msgspec

from medkg.contracts.context import Metadata, StageContext
from medkg.contracts.document import Document, StoredFile
from medkg.contracts.errors import ContractError
from medkg.contracts.ids import stable_id

IDENTIFIERS = ("doi", "pmid", "pmcid")
FILE_KEY = "file_key"  # metadata of a document: where its downloaded file lies in the blob store
_OF_THE_RECORD = ("source", "source_id", *IDENTIFIERS, "title", FILE_KEY)
_SHA256 = re.compile(r"[0-9a-f]{64}")
_TENANT = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


class PdfRequested(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A file whose parsed form is waited for; asked once for a file, however many documents wait.

    ``file`` says where its bytes lie in the blob store. ``job_id`` and ``doc_id`` are those of the document that asked
    first. ``pages`` is a hint of how long it takes, 0 where nobody knows. ``deadline`` is when the first of the waits
    gives up (RFC 3339); empty where it never does.
    """

    tenant_id: str
    file: StoredFile
    job_id: str = ""
    doc_id: str = ""
    pages: int = 0
    deadline: str = ""


_DECODE = msgspec.json.Decoder(PdfRequested).decode


def read_pdf_request(data: bytes) -> PdfRequested:
    """The request in a message of ``mineru.queue.v1``.

    Raises:
        ContractError: it is none, or it names a tenant or a digest that cannot be one.
    """
    try:
        request = _DECODE(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ContractError(f"reading a PDF request: {error}") from error
    if not _SHA256.fullmatch(request.file.sha256):
        raise ContractError(f"reading a PDF request: file.sha256 {request.file.sha256[:80]!r} is no SHA-256")
    if not _TENANT.fullmatch(request.tenant_id):
        raise ContractError(f"reading a PDF request: tenant_id {request.tenant_id[:80]!r} is no tenant")
    return request


def parsed_file_path(tenant_id: str, sha256: str, parser: str, version: str) -> str:
    """Where the document of a file lies in the blob store; every parser and version has a place of its own."""
    return f"parsed/{tenant_id}/{sha256[:2]}/{sha256}-{stable_id(parser, version)[:12]}.json"


def adopted(document: Document, ctx: StageContext) -> Document:
    """The document of a file as the document of whoever reads it; any other document as it is.

    Identity, identifiers and facts come from the record (``ctx.metadata``); title and facts of the file are kept.
    """
    if document.doc_id:
        return document
    told = ctx.metadata
    facts: Metadata = {name: value for name, value in told.items() if name not in _OF_THE_RECORD}
    return msgspec.structs.replace(
        document,
        doc_id=ctx.doc_id,
        source=_text(told.get("source")),
        source_id=_text(told.get("source_id")) or ctx.doc_id,
        title=document.title or _text(told.get("title")),
        identifiers={name: _text(told[name]) for name in IDENTIFIERS if told.get(name)} | document.identifiers,
        metadata=facts | document.metadata,
    )


def _text(value: object) -> str:
    return "" if value is None else str(value)
