"""The HTTP application, put together from its parts."""

from collections.abc import Awaitable, Callable

from fastapi import FastAPI, Request, Response

from medkg.gateway import faults, finding, jobs, overview
from medkg.gateway.parts import Parts

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def create_app(parts: Parts) -> FastAPI:
    """The gateway over these parts. Holds no state of its own."""
    app = FastAPI(
        title="medkg gateway",
        version="1",
        description="Jobs, documents, search, graph and dead letters of a medkg fleet.",
    )

    @app.middleware("http")
    async def guard(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        announced = request.headers.get("content-length", "0")
        is_chunked = "transfer-encoding" in request.headers
        if is_chunked or not announced.isdigit() or int(announced) > parts.max_body_bytes:
            response: Response = faults.answer(
                413,
                "payload_too_large",
                f"a request body has at most {parts.max_body_bytes} bytes, announced by Content-Length",
            )
        else:
            response = await call_next(request)
        for name, value in _HEADERS.items():
            response.headers[name] = value
        return response

    faults.install(app)
    for part in (jobs, finding, overview):
        app.include_router(part.routes(parts))
    return app
