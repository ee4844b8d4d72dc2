"""The HTTP application, put together from its parts."""

import logging
from collections.abc import Awaitable, Callable

from fastapi import FastAPI, Request, Response

from medkg.gateway import dead_letters, faults, finding, jobs, overview, waiting
from medkg.gateway.answers import ErrorAnswer
from medkg.gateway.parts import Parts

log = logging.getLogger(__name__)

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_ERRORS = {
    404: "It does not exist, or belongs to another tenant.",
    409: "It was decided before.",
    410: "It was there once, and is gone.",
    413: "The body is too large, or its length was not announced.",
    422: "The request has faults; each is named with its place.",
    503: "Kafka or the database does not answer.",
}


def create_app(parts: Parts) -> FastAPI:
    """The gateway over these parts. Holds no state of its own."""
    app = FastAPI(
        title="medkg gateway",
        version="1",
        description="Jobs, documents, search, graph and dead letters of a medkg fleet.",
        responses={code: {"model": ErrorAnswer, "description": meaning} for code, meaning in _ERRORS.items()},
    )

    @app.middleware("http")
    async def guard(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        response = _refusal(request, parts)
        if response is None:
            try:
                response = await call_next(request)
            except Exception:
                log.exception("answering %s %s", request.method, request.url.path)
                response = faults.answer(500, "internal_error", "the gateway failed to answer; its log says why")
        for name, value in _HEADERS.items():
            response.headers[name] = value
        return response

    faults.install(app)
    for part in (jobs, finding, dead_letters, waiting, overview):
        app.include_router(part.routes(parts))
    return app


def _refusal(request: Request, parts: Parts) -> Response | None:
    """The answer to a request that is not even looked at.

    There is no login, so a page in somebody's browser must not be able to speak for them. It cannot ask for JSON to be
    taken without the browser asking first (which is never granted), nor, on loopback, come under a name of its own
    (DNS rebinding).
    """
    if parts.host_names is not None and request.url.hostname not in parts.host_names:
        known = ", ".join(sorted(parts.host_names))
        return faults.answer(421, "host_unknown", "this gateway is not reached by that name", hint=f"use {known}")
    announced = request.headers.get("content-length", "0")
    is_chunked = "transfer-encoding" in request.headers
    if is_chunked or not (announced.isascii() and announced.isdigit()) or int(announced[:20]) > parts.max_body_bytes:
        limit = f"a request body has at most {parts.max_body_bytes} bytes, announced by Content-Length"
        return faults.answer(413, "payload_too_large", limit)
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if request.method == "POST" and content_type != "application/json":
        return faults.answer(415, "media_type_unsupported", "a request body is JSON: Content-Type: application/json")
    return None
