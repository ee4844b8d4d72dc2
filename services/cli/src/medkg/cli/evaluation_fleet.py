"""The fleet of an evaluation: a data set as files, a pipeline from them to the index, and the models it needs."""

import contextlib
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from medkg.cli.evaluation_store import EvaluationStore
from medkg.cli.fleet_process import Fleet, running_fleet
from medkg.cli.session import Clock
from medkg.haystack.evaluation import Record
from medkg.haystack.models import HashingSpec, OnnxSpec, OpenAISpec

TENANT: Final = "evaluation"
_BY_FOLDER = 1000  # files


def write_records(records: Sequence[Record], folder: Path) -> dict[str, str]:
    """Each document as a Markdown file with its title as heading; the file's name leads back to the id.

    Names are numbers: an id may be anything.
    """
    names: dict[str, str] = {}
    for number, record in enumerate(records):
        name = f"{number:07d}.md"
        part = folder / f"{number // _BY_FOLDER:04d}"
        part.mkdir(parents=True, exist_ok=True)
        title, text = " ".join(record.title.split()), " ".join(record.text.split())
        (part / name).write_text(f"# {title}\n\n{text}\n" if title else f"{text}\n", encoding="utf-8")
        names[name] = record.record_id
    return names


@contextlib.contextmanager
def evaluation_fleet(
    data_dir: Path, spec: HashingSpec | OnnxSpec | OpenAISpec, max_tokens: int, store: EvaluationStore, clock: Clock
) -> Iterator[Fleet]:
    """A fleet with one pipeline, ``evaluation``, that ends in the index; searches ask the same store."""
    topologies = data_dir / "topologies"
    topologies.mkdir(parents=True, exist_ok=True)
    # JSON is YAML, too
    (topologies / "evaluation.yaml").write_text(json.dumps(_pipeline(spec, max_tokens, store)), encoding="utf-8")
    policies = {"policies": {"default": {"attempts": 3, "timeout_seconds": 600}}}
    (topologies / "resilience.yaml").write_text(json.dumps(policies), encoding="utf-8")
    command = (sys.executable, "-m", "medkg.cli", "up", "--topologies", str(topologies))
    environment = _environment(spec) | store.environment
    with running_fleet(data_dir, data_dir / "records", clock, command, environment) as fleet:
        yield fleet


def _pipeline(spec: HashingSpec | OnnxSpec | OpenAISpec, max_tokens: int, store: EvaluationStore) -> dict[str, Any]:
    embed = spec.model_dump(mode="json", exclude={"kind", "base_url", "api_key_variable", "timeout_seconds", "threads"})
    chunk: dict[str, Any] = {"max_tokens": max_tokens, "with_title": True}
    if isinstance(spec, OnnxSpec):
        chunk["tokenizer"] = "model"
    stages = [
        {"name": "ingest", "type": "IngestStage"},
        {"name": "parse", "type": "ParseStage", "uses": "auto", "depends_on": ["ingest"]},
        {"name": "chunk", "type": "ChunkStage", "uses": "sections", "with": chunk, "depends_on": ["parse"]},
        {"name": "embed", "type": "EmbedStage", "uses": spec.kind, "with": embed, "depends_on": ["chunk"]},
        {"name": "index", "type": "IndexStage", "uses": store.uses, "with": store.options, "depends_on": ["embed"]},
    ]
    return {
        "version": "1.0",
        "name": "evaluation",
        "description": "A data set to the index.",
        "applicable_sources": ["files"],
        "stages": stages,
    }


def _environment(spec: HashingSpec | OnnxSpec | OpenAISpec) -> dict[str, str]:
    """What the fleet must know of the model to embed passages and, in the gateway, questions."""
    environment = {"MEDKG_SEARCH_EMBEDDERS": f"[{spec.model_dump_json()}]"}
    if isinstance(spec, OnnxSpec):
        environment["MEDKG_CHUNK_TOKENIZER_FILE"] = str(spec.folder / "tokenizer.json")
        environment["MEDKG_EMBED_ONNX_THREADS"] = str(spec.threads)
    if isinstance(spec, OpenAISpec):
        environment["MEDKG_EMBED_OPENAI_BASE_URL"] = spec.base_url
    return environment
