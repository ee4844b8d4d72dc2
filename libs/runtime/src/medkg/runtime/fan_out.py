"""From a page of a source to one message a document, and the request for the next page."""

import asyncio
from collections.abc import Callable

import msgspec

from medkg.contracts import topics
from medkg.contracts.cloudevents import Message
from medkg.contracts.document import AdapterRequest, IngestPage, RawPayload, RefusedRecord
from medkg.contracts.errors import Disposition, PayloadMalformedError
from medkg.contracts.ids import content_digest, document_id
from medkg.contracts.messages import Artefact, Failure, IngestedDocument, PageReport, RefusedInput, StageRequest
from medkg.contracts.routing import route_after
from medkg.contracts.stages import STAGE_CONTRACTS, StageType, encode_artefact
from medkg.contracts.topology import Topology
from medkg.runtime.artefacts import Artefacts, payload_path
from medkg.runtime.outcome import Narrator, writable

_REQUEST = STAGE_CONTRACTS[StageType.INGEST].consumes
_PAYLOAD = STAGE_CONTRACTS[StageType.INGEST].produces
_DECODE_REQUEST = msgspec.json.Decoder(AdapterRequest).decode


async def page_messages(
    narrator: Narrator,
    topology: Topology,
    page: IngestPage,
    asked: bytes,
    artefacts: Artefacts,
    elapsed_ms: Callable[[], float],
) -> list[Message]:
    """Everything that follows a page: its documents, the next page (by way of the gate-router), the event.

    A record that occurs twice in a page is one document: the last one counts. One that cannot be written as JSON is
    refused like one that the source could not read.
    """
    request, about = narrator.request, _DECODE_REQUEST(asked)
    payloads: dict[str, tuple[RawPayload, bytes]] = {}
    refused = list(page.refused)
    for payload in page.payloads:
        try:
            encoded = encode_artefact(payload)
            payloads[document_id(request.tenant_id, payload.source, payload.source_id)] = payload, encoded
        except UnicodeEncodeError as error:
            refused.append(RefusedRecord(payload.source_id, payload.uri, PayloadMalformedError.code, str(error)))
    made = await asyncio.gather(*(_artefact_of(data, request, artefacts) for _, data in payloads.values()))
    messages: list[Message] = []
    for (doc_id, (payload, _)), artefact in zip(payloads.items(), made, strict=True):
        metadata = {"source": payload.source, "source_id": payload.source_id} | payload.metadata
        route = route_after(topology, request.stage, metadata)
        messages += narrator.next_requests(topology, route, doc_id, {_PAYLOAD: artefact}, metadata)
        if route.skipped or route.finished_leaves:
            messages.append(narrator.of_document(doc_id).passed(route, topology))
    if page.next_cursor:
        messages.append(_next_page(narrator, about, page.next_cursor))
    report = PageReport(
        number=request.page,
        documents=tuple(IngestedDocument(doc_id, p.source_id, p.uri) for doc_id, (p, _) in payloads.items()),
        refused=tuple(_refusal(record, request, about) for record in refused),
        is_last=not page.next_cursor,
        total=page.total,
    )
    return narrator.page_completed(report, elapsed_ms(), messages)


def first_page(request: StageRequest, source: str, selection: dict[str, object], *, limit: int) -> StageRequest:
    """The request for the first page of a job, made from a request that names the job and its ingest stage."""
    asked = encode_artefact(AdapterRequest(source=source, selection=selection, limit=limit))
    return msgspec.structs.replace(request, artefacts={_REQUEST: _inline(asked)}, page=0)


def _refusal(record: RefusedRecord, request: StageRequest, about: AdapterRequest) -> RefusedInput:
    source_id = writable(record.source_id)
    failure = Failure(record.code, writable(record.message), disposition=Disposition.REJECTED.value)
    doc_id = document_id(request.tenant_id, about.source, source_id)
    return RefusedInput(doc_id, source_id, writable(record.uri), failure)


def _next_page(narrator: Narrator, about: AdapterRequest, cursor: str) -> Message:
    following = encode_artefact(msgspec.structs.replace(about, cursor=cursor))
    request = msgspec.structs.replace(
        narrator.request, artefacts={_REQUEST: _inline(following)}, page=narrator.request.page + 1, attempt=1
    )
    return narrator.follow(topics.GATE, request)


def _inline(data: bytes) -> Artefact:
    return Artefact(kind=_REQUEST, sha256=content_digest(data), size_bytes=len(data), inline=msgspec.Raw(data))


async def _artefact_of(data: bytes, request: StageRequest, artefacts: Artefacts) -> Artefact:
    return await artefacts.make(_PAYLOAD, data, payload_path(request.tenant_id, content_digest(data)), is_kept=False)
