"""Files that documents wait for at a gate: asking a PDF parser for them, once each."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

import msgspec

from medkg.contracts import topics
from medkg.contracts.cloudevents import Envelope, Message, message, now, schema_uri, trace_parent
from medkg.contracts.document import StoredFile
from medkg.contracts.errors import ContractError
from medkg.contracts.ids import stable_id
from medkg.contracts.messages import REQUEST_DECODER, Artefact, EventType, StageRequest, encode
from medkg.contracts.pdf import PdfRequested
from medkg.contracts.topology import GateDefinition, reads_of
from medkg.storage.engine import Engine
from medkg.storage.parsed_files import Wanted, want
from medkg.storage.waits import Wait

_PAGES = "pages"  # metadata of a document: how many pages its source says the file has


class Opens(Protocol):
    async def open(self, artefact: Artefact) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Files:
    """Finds out which file a request is about, notes who waits for it, and writes what a parser is asked."""

    engine: Engine
    artefacts: Opens
    source: str

    async def of(self, request: StageRequest, gate: GateDefinition) -> StoredFile | None:
        """The file that has to be parsed before a document can pass a gate; None where it waits for something else.

        Raises:
            ContractError: the artefact is no stored file, or it is gone.
            ResourceUnavailableError: the blob store does not answer.
        """
        artefact = request.artefacts.get(reads_of(gate))
        return None if artefact is None else await self._read(artefact)

    async def note(self, waits: Sequence[Wait]) -> None:
        """Note who waits for which file. Where it has been parsed already, the ledger says so when this returns.

        Raises:
            ResourceUnavailableError: the database does not answer.
        """
        wanted = [Wanted(each.tenant_id, each.file_sha256, each.job_id, each.doc_id) for each in waits]
        await want(self.engine, [each for each in wanted if each.sha256])

    async def question(self, row: Any) -> Message:
        """What a parser is asked for the file of a waiting document.

        Raises:
            ContractError: as :meth:`of`.
            ResourceUnavailableError: the blob store does not answer.
        """
        request = REQUEST_DECODER.decode(row.request)
        file = await self._read(request.artefacts["file"])
        pages = request.metadata.get(_PAGES)
        deadline = "" if row.due_at is None else _rfc3339(row.due_at)
        about = PdfRequested(
            tenant_id=row.tenant_id,
            file=file,
            job_id=row.job_id,
            doc_id=row.doc_id,
            pages=pages if isinstance(pages, int) and 0 < pages < 100_000 else 0,
            deadline=deadline,
        )
        identity = stable_id("pdf-requested", row.tenant_id, file.sha256, row.wait_id, row.resumes)
        envelope = Envelope(
            id=identity,
            type=EventType.PDF_REQUESTED,
            source=self.source,
            time=now(),
            subject=f"{row.tenant_id}/{file.sha256}",
            dataschema=schema_uri("pdf-requested"),
            partitionkey=file.sha256,
            correlationid=row.job_id,
            traceparent=trace_parent(stable_id("trace", row.job_id, row.doc_id), identity),
            expirytime=deadline,
        )
        return message(topics.MINERU_QUEUE, envelope, encode(about))

    async def _read(self, artefact: Artefact) -> StoredFile:
        data = await self.artefacts.open(artefact)
        try:
            return _DECODE_FILE(data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise ContractError(f"reading the artefact {artefact.kind!r} of a document at a gate: {error}") from error


_DECODE_FILE = msgspec.json.Decoder(StoredFile).decode


def _rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
