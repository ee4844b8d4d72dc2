"""A server of SPLADE weights in the form of text-embeddings-inference, with the real small model, for tests."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tokenizers import Tokenizer

from medkg.haystack.splade import OnnxSplade, SpladeSettings


@contextmanager
def sparse_server(folder: Path) -> Iterator[str]:
    """``GET /health`` and ``POST /embed_sparse`` on loopback; yields its URL. Terms are token ids, as there."""
    splade = OnnxSplade(SpladeSettings(folder, on_gpu=False))
    id_of = Tokenizer.from_file(str(folder / "tokenizer.json")).token_to_id

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer(b"{}")

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
            rows = [
                [{"index": id_of(term), "value": weight} for term, weight in zip(v.terms, v.weights, strict=True)]
                for v in splade.vectors(asked["inputs"])
            ]
            self._answer(json.dumps(rows).encode())

        def _answer(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  as the base class names it
            """Nothing is logged."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
