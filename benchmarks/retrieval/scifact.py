"""`make benchmark-retrieval`: SciFact through a whole fleet, its vectors made by the embed service from real weights.

For each model ``medkg evaluate`` starts a fleet, sends the abstracts through it (``embed.onnx``, the models in the
fleet's own process), asks every judged question over the gateway, and writes ``results/MODEL``. Ends with 1 where a
figure is below what is wanted of it.

    make benchmark-retrieval                                   both models (15 min on two quiet cores)
    make benchmark-retrieval ARGS="--models minilm --out DIR"  one, kept elsewhere
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.servers.models.weights import model_folder

HERE = Path(__file__).resolve().parent
DATASET = HERE.parents[2] / "shared" / "corpus" / "retrieval" / "scifact"
BM25 = 0.679  # nDCG@10 that is published for BM25 (BEIR, Thakur et al. 2021)
LEAST_GAIN = 0.01  # of the fused list over the best of the three
QUANTISED_LOSS = 0.02  # that a model in 8 bits may have against the figure published in full precision


@dataclass(frozen=True, slots=True)
class Model:
    """A real model: how it is described to the fleet, and its published nDCG@10 on SciFact."""

    description: dict[str, Any]
    published: float


MODELS = {
    "minilm": Model({"pooling": "mean", "max_tokens": 512}, 0.645),
    "bge-small": Model(
        {
            "pooling": "cls",
            "max_tokens": 512,
            "query_prefix": "Represent this sentence for searching relevant passages: ",
        },
        0.713,
    ),
}


def evaluate(name: str, dataset: Path, out: Path, threads: int) -> dict[str, Any]:
    """The figures of one model."""
    folder = model_folder(name)
    spec = {"kind": "onnx", "folder": str(folder), "threads": threads, **MODELS[name].description}
    flags = ["--dataset", f"beir:{dataset}", "--embedder", json.dumps(spec), "--out", str(out)]
    subprocess.run([sys.executable, "-m", "medkg.cli", "evaluate", *flags], check=True)
    told = (out / "evaluation.json").read_text(encoding="utf-8").replace(str(folder), name)  # wherever it lies here
    (out / "evaluation.json").write_text(told, encoding="utf-8")
    found: dict[str, Any] = json.loads(told)
    return found


def below(found: dict[str, Any], published: float) -> Iterator[str]:
    """What is not reached, in words."""
    reached = {leg: figures["measures"]["nDCG@10"] for leg, figures in found["legs"].items()}
    wanted = {
        "bm25": BM25,
        "dense": published - QUANTISED_LOSS,
        "sparse": reached["bm25"],
        "fused": max(figure for leg, figure in reached.items() if leg != "fused") + LEAST_GAIN,
    }
    for leg, least in wanted.items():
        if reached[leg] < least:
            yield f"nDCG@10 of {leg} is {reached[leg]:.4f}, wanted is {least:.4f}"


def main() -> int:
    """Evaluates each model that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=[*MODELS], default=[*MODELS])
    parser.add_argument("--dataset", type=Path, default=DATASET, help="a folder in BEIR's form")
    parser.add_argument("--threads", type=int, default=2, help="of a model")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    arguments = parser.parse_args()
    missed = False
    for name in arguments.models:
        found = evaluate(name, arguments.dataset, arguments.out / name, arguments.threads)
        for fault in below(found, MODELS[name].published):
            missed = True
            print(f"{name}: {fault}", file=sys.stderr)
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
