"""An OpenAI-compatible server of embeddings with a real small model: what vLLM is in production, for tests.

    python -m tests.servers.models.server FOLDER --port 8000 [--pooling cls] [--max-tokens 512] [--cache FILE]

``GET /health``, ``GET /v1/models`` and ``POST /v1/embeddings`` (base64 or numbers), the model named ``small``. With a
cache (SQLite) every text is computed once.
"""

import argparse
import base64
import hashlib
import json
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np

from medkg.haystack.embedding import Matrix, TextKind
from medkg.haystack.onnx import OnnxEmbedder, OnnxSettings, Pooling

MODEL = "small"


class CachedModel:
    """The vectors of texts; white space apart, a text that was seen before is not computed again."""

    def __init__(self, embedder: OnnxEmbedder, cache: Path | None = None) -> None:
        self._embedder = embedder
        self._lock = threading.Lock()
        self._cache = sqlite3.connect(cache or ":memory:", check_same_thread=False, isolation_level=None)
        self._cache.execute("CREATE TABLE IF NOT EXISTS vectors (key TEXT PRIMARY KEY, vector BLOB NOT NULL)")

    def vectors(self, texts: Sequence[str]) -> Matrix:
        with self._lock:
            return np.stack([self._vector(text) for text in texts])

    def put(self, text: str, vector: Matrix) -> None:
        self._cache.execute("INSERT OR REPLACE INTO vectors VALUES (?, ?)", (self._key(text), vector.tobytes()))

    def _vector(self, text: str) -> Matrix:
        row = self._cache.execute("SELECT vector FROM vectors WHERE key = ?", (self._key(text),)).fetchone()
        if row is not None:
            return np.frombuffer(row[0], dtype="<f4")
        vector: Matrix = self._embedder.vectors([text], TextKind.PASSAGE).vectors[0]
        self.put(text, vector)
        return vector

    def _key(self, text: str) -> str:
        return hashlib.sha256(f"{self._embedder.model} {' '.join(text.split())}".encode()).hexdigest()


@contextmanager
def model_server(model: CachedModel, port: int = 0) -> Iterator[str]:
    """The server at work on loopback; yields its URL."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer({"data": [{"id": MODEL}]} if self.path == "/v1/models" else {})

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
            data = []
            for index, vector in enumerate(model.vectors(asked["input"])):
                is_base64 = asked.get("encoding_format") == "base64"
                shown = base64.b64encode(vector.tobytes()).decode() if is_base64 else vector.tolist()
                data.append({"index": index, "object": "embedding", "embedding": shown})
            self._answer({"data": data, "model": MODEL})

        def _answer(self, value: Any) -> None:
            body = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  as the base class names it
            """Nothing is logged."""

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def main() -> None:
    parser = argparse.ArgumentParser(description="An OpenAI-compatible server of embeddings with a real small model.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--pooling", choices=["mean", "cls"], default="mean")
    parser.add_argument("--max-tokens", type=int, default=256)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cache", type=Path)
    given = parser.parse_args()
    settings = OnnxSettings(given.folder, Pooling(given.pooling), given.max_tokens, threads=given.threads)
    with model_server(CachedModel(OnnxEmbedder(settings), given.cache), given.port) as url:
        print(f"serving {MODEL} at {url}; Ctrl-C ends it")
        threading.Event().wait()


if __name__ == "__main__":
    main()
