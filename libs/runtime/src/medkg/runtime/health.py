"""Health and metrics over HTTP: ``/health/live``, ``/health/ready`` and ``/metrics``, on a thread of its own.

Alive means progress: the consumer is polled, and what has been taken gets finished. A process that merely exists is not
alive. The thread answers even when the event loop is blocked, and then says so.
"""

import json
import threading
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from types import TracebackType
from typing import Any, Self
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app

from medkg.contracts.errors import ConfigurationError

Checks = Callable[[], dict[str, str]]  # name -> what is wrong with it; empty when all is well


class HealthServer:
    """Serves until closed; a context manager. ``address`` is known once it is made.

    Raises:
        ConfigurationError: it cannot listen there.
    """

    def __init__(self, host: str, port: int, registry: CollectorRegistry, *, live: Checks, ready: Checks) -> None:
        self.watch(registry, live=live, ready=ready)
        try:
            self._server = make_server(host, port, self._answer, server_class=_Server, handler_class=_QuietHandler)
        except OSError as error:
            raise ConfigurationError(
                f"listening on {host}:{port} for health and metrics: {error.strerror or error}; name another address "
                "(MEDKG_HTTP_HOST, MEDKG_HTTP_PORT), or none (MEDKG_HTTP_PORT=-1)"
            ) from error
        self._thread = threading.Thread(target=self._server.serve_forever, name="health", daemon=True)
        self.address = f"{host}:{self._server.server_port}"

    def watch(self, registry: CollectorRegistry, *, live: Checks, ready: Checks) -> None:
        """Answer with these from now on."""
        self._metrics = make_wsgi_app(registry)
        self._checks = {"/health/live": live, "/health/ready": ready}

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if path == "/metrics":
            return list(self._metrics(environ, start_response))
        check = self._checks.get(path)
        if check is None:
            return _respond(start_response, "404 Not Found", {"error": "try /health/live, /health/ready or /metrics"})
        faults = check()
        status = "503 Service Unavailable" if faults else "200 OK"
        return _respond(start_response, status, {"status": "failing" if faults else "ok", "faults": faults})


def _respond(start_response: Any, status: str, body: dict[str, Any]) -> list[bytes]:
    data = json.dumps(body).encode()
    start_response(status, [("Content-Type", "application/json"), ("Content-Length", str(len(data)))])
    return [data]


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _QuietHandler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the name is the base class's
        """Probes come every few seconds: not worth a line."""
