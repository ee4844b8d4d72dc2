"""How long a question takes over HTTP: ``make benchmark-search``.

``build`` is long: ``medkg evaluate`` sends SciFact through a whole fleet for each model and store, and keeps what the
fleet made in a folder. ``ask`` is short, so that it can be run while the machine is quiet: it starts each of these
fleets, asks its gateway every judged question on one connection, one at a time, and times it from the first byte sent
to the last byte read. The embedding of the question is part of that. Without either, both are done.

    make benchmark-search ARGS="build --data DIR --stores embedded"
    make benchmark-search ARGS="ask --data DIR"

OpenSearch is the one at MEDKG_OPENSEARCH_URL (``make opensearch`` starts one).
"""

import argparse
import http.client
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

from tests.servers.models.weights import model_folder

from medkg.cli.evaluation_fleet import TENANT, evaluation_fleet
from medkg.cli.evaluation_store import evaluation_store
from medkg.cli.index import DenseName, StoreName
from medkg.cli.session import SystemClock
from medkg.haystack.evaluation import percentile, read_beir
from medkg.haystack.models import read_spec

DATASET: Final = Path(__file__).resolve().parents[3] / "shared" / "corpus" / "retrieval" / "scifact"
RESULTS: Final = Path(__file__).resolve().parents[1] / "results"
TARGETS: Final = {StoreName.EMBEDDED: 30.0, StoreName.OPENSEARCH: 60.0}  # p95 in ms of a fused answer
MODELS: Final = ("hashing", "minilm")
ASKED: Final = {"bm25": ["bm25"], "dense": ["dense"], "sparse": ["sparse"], "fused": []}
WARM_UP: Final = 50
MAX_TOKENS: Final = 510


@dataclass(frozen=True, slots=True)
class Latency:
    """Of one kind of search. ``gateway_ms``: what the gateway says it took, without HTTP and JSON."""

    store: str
    model: str
    search: str
    p50_ms: float
    p95_ms: float
    p99_ms: float
    gateway_p50_ms: float
    gateway_p95_ms: float


def description(model: str) -> dict[str, Any]:
    """Of an embedder; a real one is fetched where it is not here."""
    if model == "hashing":
        return {"kind": "hashing"}
    return {"kind": "onnx", "folder": str(model_folder(model)), "threads": os.cpu_count() or 1, "max_tokens": 512}


def build(data: Path, store: StoreName, model: str) -> None:
    """A fleet's data with the data set in the store's index."""
    folder = data / model
    flags = ["--dataset", f"beir:{DATASET}", "--embedder", json.dumps(description(model)), "--store", str(store)]
    flags += ["--data", str(folder), "--out", str(folder / f"evaluation-{store}")]
    subprocess.run([sys.executable, "-m", "medkg.cli", "evaluate", *flags], check=True)


def ask(data: Path, store: StoreName, model: str) -> Iterator[Latency]:
    """Every kind of search, on the data that was built."""
    queries = list(read_beir(DATASET).queries.values())
    spec, folder = read_spec(description(model)), (data / model).absolute()
    with (
        evaluation_store(store, DenseName.FAISS, folder, is_kept=True) as at,
        evaluation_fleet(folder, spec, MAX_TOKENS, at, SystemClock()) as fleet,
    ):
        connection = http.client.HTTPConnection(urlsplit(fleet.gateway_url).netloc, timeout=60)
        for search, legs in ASKED.items():
            timed(connection, queries[:WARM_UP], legs)
            whole, inside = timed(connection, queries, legs)
            yield Latency(
                store=str(store),
                model=model,
                search=search,
                p50_ms=percentile(whole, 50),
                p95_ms=percentile(whole, 95),
                p99_ms=percentile(whole, 99),
                gateway_p50_ms=percentile(inside, 50),
                gateway_p95_ms=percentile(inside, 95),
            )
        connection.close()


def timed(
    connection: http.client.HTTPConnection, queries: Sequence[str], legs: Sequence[str]
) -> tuple[list[float], list[float]]:
    """Milliseconds of each answer: as a client sees it, and as the gateway says.

    Raises:
        RuntimeError: an answer is no answer, or lacks a kind of search.
    """
    whole, inside = [], []
    for query in queries:
        target = f"/v1/search?{urlencode({'q': query, 'tenant_id': TENANT, 'leg': legs}, doseq=True)}"
        began = time.perf_counter()
        connection.request("GET", target)
        body = connection.getresponse().read()
        whole.append((time.perf_counter() - began) * 1000)
        answer = json.loads(body)
        if answer.get("legs_missing", True) or not answer["hits"]:
            raise RuntimeError(f"asking {query!r}: {body[:500]!r}")
        inside.append(answer["took_ms"])
    return whole, inside


def table(found: Sequence[Latency]) -> str:
    """As it is printed."""
    lines = [
        f"{'store':<12}{'model':<10}{'search':<8}{'p50 ms':>8}{'p95':>8}{'p99':>8}{'gateway p50':>13}{'p95':>8}  target"
    ]
    for row in found:
        bound = TARGETS[StoreName(row.store)]
        target = f"p95 < {bound:g}: {'yes' if row.p95_ms < bound else 'NO'}" if row.search == "fused" else ""
        spans = f"{row.p50_ms:>8.1f}{row.p95_ms:>8.1f}{row.p99_ms:>8.1f}{row.gateway_p50_ms:>13.1f}"
        lines.append(
            f"{row.store:<12}{row.model:<10}{row.search:<8}{spans}{row.gateway_p95_ms:>8.1f}  {target}".rstrip()
        )
    return "\n".join(lines)


def main() -> int:
    """1 where a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="?", choices=["build", "ask", "both"], default="both")
    parser.add_argument("--data", type=Path, default=Path(".medkg") / "benchmark-search", help="the fleets' folders")
    parser.add_argument("--stores", nargs="+", type=StoreName, default=[*StoreName], metavar="STORE")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=[*MODELS])
    parser.add_argument("--out", type=Path, default=RESULTS / "search-latency.json")
    arguments = parser.parse_args()
    pairs = [(store, model) for model in arguments.models for store in arguments.stores]
    if arguments.part != "ask":
        for store, model in pairs:
            build(arguments.data, store, model)
    if arguments.part == "build":
        return 0
    found = [row for store, model in pairs for row in ask(arguments.data, store, model)]
    print(table(found))
    account = {
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "latencies": [asdict(row) for row in found],
    }
    arguments.out.write_text(json.dumps(account, indent=2) + "\n", encoding="utf-8")
    return int(any(row.search == "fused" and row.p95_ms >= TARGETS[StoreName(row.store)] for row in found))


if __name__ == "__main__":
    sys.exit(main())
