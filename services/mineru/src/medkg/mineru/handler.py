"""From a request on the queue to a document in the blob store and a word in the ledger."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

from medkg.contracts.cloudevents import Message
from medkg.contracts.document import Document
from medkg.contracts.errors import (
    ContractError,
    MedkgError,
    PayloadTooLargeError,
    ResourceUnavailableError,
    StageCrashedError,
)
from medkg.contracts.ids import content_digest
from medkg.contracts.implementation import Blobs
from medkg.contracts.pdf import PdfRequested, parsed_file_path, read_pdf_request
from medkg.contracts.stages import encode_artefact
from medkg.mineru.answers import Output
from medkg.mineru.mapping import to_document
from medkg.mineru.mapping.document import MAPPING
from medkg.mineru.metrics import MineruMetrics
from medkg.mineru.page_sizes import page_sizes_of
from medkg.mineru.parsing import Parsing, Work
from medkg.runtime.outcome import dead_letter, failure_of
from medkg.runtime.records import Record
from medkg.storage.engine import Engine
from medkg.storage.parsed_files import ParsedFile, file_failed, file_parsed, find_parsed

log = logging.getLogger(__name__)

PARSER = "mineru"
_MAX_MESSAGE = 2_000


@dataclass(slots=True)
class MineruHandler:
    """Safe for any number of concurrent calls; the same request may come again."""

    parsing: Parsing
    blobs: Blobs
    engine: Engine
    metrics: MineruMetrics
    worker: str
    fields: dict[str, str]
    max_file_bytes: int

    async def handle(self, records: Sequence[Record]) -> list[Message]:
        """Parse what is asked for. What cannot be read becomes a dead letter; what cannot be parsed, a failed field.

        Raises:
            ResourceUnavailableError: the database or the blob store does not answer, or MinerU loses every task.
        """
        messages: list[Message] = []
        for record in records:
            try:
                request = read_pdf_request(record.value)
            except ContractError as error:
                messages.append(dead_letter(record, failure_of(error), self.worker))
                self.metrics.files.labels("unreadable").inc()
                continue
            await self._one(request)
        return messages

    def refuse(self, records: Sequence[Record], error: MedkgError) -> list[Message]:
        """Dead letters for requests whose dead letters Kafka does not take."""
        return [dead_letter(record, failure_of(error), self.worker) for record in records]

    async def _one(self, request: PdfRequested) -> None:
        known = await find_parsed(self.engine, request.tenant_id, request.file.sha256, parser=PARSER)
        if known is not None and known.is_ready and await self._is_stored(known):
            waiting = await file_parsed(self.engine, known)
            self.metrics.files.labels("known").inc()
            log.info("file %s was parsed before; %d documents go on", request.file.sha256, waiting)
            return
        begun = time.monotonic()
        try:
            parsed = await self._parsed(request)
        except ResourceUnavailableError:
            raise
        except MedkgError as error:
            await self._give_up(request, error)
            return
        except Exception as error:
            crash = StageCrashedError(f"reading file {request.file.sha256}: {type(error).__name__}: {error}")
            crash.__cause__ = error
            log.exception("reading file %s", request.file.sha256)
            await self._give_up(request, crash)
            return
        waiting = await file_parsed(self.engine, parsed)
        self.metrics.files.labels("parsed").inc()
        self.metrics.seconds.observe(time.monotonic() - begun)
        log.info("file %s is parsed; %d documents go on", parsed.sha256, waiting)

    async def _parsed(self, request: PdfRequested) -> ParsedFile:
        file, tenant = request.file, request.tenant_id
        data = await self._bytes_of(request)
        work = Work(f"{tenant}/{file.sha256}", f"{file.sha256}.pdf", data, self.fields)
        with self.metrics.at_work.track_inprogress():
            output = await self.parsing.run(work)
        sizes = {} if output.middle else await page_sizes_of(data)
        encoded = encode_artefact(_mapped(output, file.sha256, sizes))
        version = _version(output)
        key = parsed_file_path(tenant, file.sha256, PARSER, version)
        await self._keep_originals(key, output)
        await self.blobs.put(key, encoded)
        stored = await self.blobs.get(key) or encoded  # an earlier run may have come this far: one of the two holds
        return ParsedFile(tenant, file.sha256, PARSER, version, key, content_digest(stored), len(stored))

    async def _bytes_of(self, request: PdfRequested) -> bytes:
        file = request.file
        if file.size_bytes > self.max_file_bytes:
            raise PayloadTooLargeError(
                f"reading file {file.sha256}: {file.size_bytes} bytes are over the limit of {self.max_file_bytes} "
                "(MEDKG_MINERU_MAX_FILE_BYTES)"
            )
        data = await self.blobs.get(file.key)
        if data is None:
            raise ContractError(f"reading file {file.sha256}: nothing is stored under {file.key}; was it cleaned up?")
        if content_digest(data) != file.sha256:
            raise ContractError(f"reading file {file.sha256}: the bytes under {file.key} are others")
        return data

    async def _keep_originals(self, key: str, output: Output) -> None:
        for name, data in output.originals:
            await self.blobs.put(f"{key.removesuffix('.json')}.{name}.json", data)

    async def _is_stored(self, known: ParsedFile) -> bool:
        return await self.blobs.get(known.document_key) is not None

    async def _give_up(self, request: PdfRequested, error: MedkgError) -> None:
        log.warning("%s: %s", error.code, error.message)
        self.metrics.files.labels("failed").inc()
        failure = failure_of(error)
        failed = ParsedFile(
            request.tenant_id,
            request.file.sha256,
            PARSER,
            MAPPING,
            failure_code=failure.code,
            failure_message=failure.message[:_MAX_MESSAGE].replace("\x00", ""),
        )
        await file_failed(self.engine, failed)


def _mapped(output: Output, sha256: str, sizes: dict[int, tuple[float, float]]) -> Document:
    return to_document(output, sha256, sizes)


def _version(output: Output) -> str:
    return f"{output.version or 'unknown'}/{output.backend or 'default'}/{MAPPING}"
