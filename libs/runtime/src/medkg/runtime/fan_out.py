"""From a page of a source to one message a document, and the request for the next page."""

import asyncio
from collections.abc import Callable

import msgspec

from medkg.contracts import topics
from medkg.contracts.cloudevents import Message
from medkg.contracts.document import AdapterRequest, IngestPage, RawPayload
from medkg.contracts.ids import content_digest, document_id
from medkg.contracts.messages import Artefact, Failure, IngestedDocument, PageReport, RefusedInput, StageRequest
from medkg.contracts.routing import route_after
from medkg.contracts.stages import STAGE_CONTRACTS, StageType, encode_artefact
from medkg.contracts.topology import Topology
from medkg.runtime.artefacts import Artefacts, payload_path
from medkg.runtime.outcome import Narrator

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

    A record that occurs twice in a page is one document: the last one counts.
    """
    request = narrator.request
    payloads = {document_id(request.tenant_id, p.source, p.source_id): p for p in page.payloads}
    made = await asyncio.gather(*(_artefact_of(payload, request, artefacts) for payload in payloads.values()))
    messages: list[Message] = []
    for (doc_id, payload), artefact in zip(payloads.items(), made, strict=True):
        metadata = {"source": payload.source, "source_id": payload.source_id} | payload.metadata
        route = route_after(topology, request.stage, metadata)
        messages += narrator.next_requests(topology, route, doc_id, {_PAYLOAD: artefact}, metadata)
    if page.next_cursor:
        messages.append(_next_page(narrator, asked, page.next_cursor))
    report = PageReport(
        number=request.page,
        documents=tuple(IngestedDocument(doc_id, p.source_id, p.uri) for doc_id, p in payloads.items()),
        refused=tuple(
            RefusedInput(
                document_id(request.tenant_id, _DECODE_REQUEST(asked).source, record.source_id),
                record.source_id,
                record.uri,
                Failure(record.code, record.message, disposition="rejected"),
            )
            for record in page.refused
        ),
        is_last=not page.next_cursor,
        total=page.total,
    )
    return narrator.page_completed(report, elapsed_ms(), messages)


def first_page(request: StageRequest, source: str, selection: dict[str, object], *, limit: int) -> StageRequest:
    """The request for the first page of a job, made from a request that names the job and its ingest stage."""
    asked = encode_artefact(AdapterRequest(source=source, selection=selection, limit=limit))
    return msgspec.structs.replace(request, artefacts={_REQUEST: _inline(asked)}, page=0)


def _next_page(narrator: Narrator, asked: bytes, cursor: str) -> Message:
    following = encode_artefact(msgspec.structs.replace(_DECODE_REQUEST(asked), cursor=cursor))
    request = msgspec.structs.replace(
        narrator.request, artefacts={_REQUEST: _inline(following)}, page=narrator.request.page + 1, attempt=1
    )
    return narrator.follow(topics.GATE, request)


def _inline(data: bytes) -> Artefact:
    return Artefact(kind=_REQUEST, sha256=content_digest(data), size_bytes=len(data), inline=msgspec.Raw(data))


async def _artefact_of(payload: RawPayload, request: StageRequest, artefacts: Artefacts) -> Artefact:
    data = encode_artefact(payload)
    return await artefacts.make(_PAYLOAD, data, payload_path(request.tenant_id, content_digest(data)), is_kept=False)
