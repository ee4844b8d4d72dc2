"""Writes docs/reference from the code, so that it cannot be wrong.

    python docs/generate.py           write what has changed
    python docs/generate.py --check   change nothing; exit 1 and name the files that would change

A generator is a function without arguments that returns the texts of its files by path below docs/reference. To add
one, write it here or import it, and name it in GENERATORS. Everything below docs/reference belongs to a generator: a
file that none of them makes is removed.
"""

import argparse
import inspect
import json
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
from pydantic import BaseModel

from medkg.contracts import document, errors, jobs, messages, pdf, topics, topology
from medkg.contracts.cloudevents import schema_uri
from medkg.contracts.stages import STAGE_CONTRACTS, StageType

sys.path.insert(0, str(Path(__file__).resolve().parent))  # a test loads this file by its path
import processes

REFERENCE = Path(__file__).resolve().parent / "reference"

Files = Mapping[str, str]

MESSAGE_TYPES: tuple[type[msgspec.Struct], ...] = (
    document.AdapterRequest,
    document.RawPayload,
    document.IngestPage,
    document.FileLocations,
    document.StoredFile,
    document.Document,
    document.QualityReport,
    document.Chunk,
    document.EmbeddingBatch,
    document.IndexReceipt,
    document.Entity,
    document.Claim,
    document.Extraction,
    document.GraphWriteReceipt,
    messages.PipelineRef,
    messages.Artefact,
    messages.StageRequest,
    messages.StageEvent,
    messages.JobAdmitted,
    messages.JobRejected,
    messages.JobCompleted,
    messages.DeadLetter,
    messages.LetterDecision,
    messages.BreakerChange,
    pdf.PdfRequested,
)
DOOR_TYPES: tuple[type[BaseModel], ...] = (
    jobs.JobSubmission,
    *jobs.SELECTIONS.values(),
    topology.Topology,
    topology.Policies,
)


def schemas() -> Files:
    """A JSON Schema for everything that stands in a message, an artefact or a file."""
    found: dict[str, dict[str, Any]] = {}
    for struct in MESSAGE_TYPES:
        found[kebab(struct.__name__)] = msgspec.json.schema(struct, schema_hook=_any_json)
    for model in DOOR_TYPES:
        found[kebab(model.__name__)] = model.model_json_schema(by_alias=True, mode="validation")
    return {f"schemas/{name}.json": _schema_text(name, content) for name, content in found.items()}


def error_table() -> Files:
    """Every error with its code, from the tree in the errors module."""
    rows = [
        "| code | error | what it means | tried again | opens a breaker | document in the ledger | `ce_errorcode` "
        "| what to do |",
        "|---|---|---|---|---|---|---|---|",
    ]
    meanings = _meanings_of_errors()
    for error in (each for each in errors.all_errors() if each.__module__ == errors.__name__):
        depth = len(error.__mro__) - len(errors.MedkgError.__mro__)
        name = "&nbsp;" * 4 * depth + f"`{error.__name__}`"
        retried, trips = ("yes" if is_so else "no" for is_so in (error.retryable, error.trips_breaker))
        told = (f"`{error.disposition.value}`", f"`{error.event_code()}`", error.remedy.replace("|", "\\|"))
        row = (f"`{error.code}`", name, meanings[error.__name__], retried, trips, *told)
        rows.append(f"| {' | '.join(row)} |")
    intro = (
        "A code is stable: it stands in events (`failure.code` in the data, and with the prefix "
        "`org.medicalkg.error.` as the CloudEvents attribute `errorcode` of `stage.failed` and `stage.retrying`), in "
        "the ledger (`failure_code`), in dead letters and in metrics. A document that met an error for good stands in "
        "the ledger as *rejected* where its content is at fault and the same bytes can never pass, and as *failed* "
        "where a redrive may pass. Errors that open a breaker count when a policy has one; how breakers, retries and "
        "limits work is in [resilience](../guides/resilience.md)."
    )
    return {"errors.md": _page("Errors", intro, rows)}


def topic_table() -> Files:
    """Every topic, what it carries, and who reads it."""
    requested = messages.EventType.STAGE_REQUESTED
    rows = ["| topic | event types | key | written by | read by |", "|---|---|---|---|---|"]
    job_events = [messages.EventType.JOB_SUBMITTED]
    rows.append(_topic(topics.JOBS, job_events, "any", "every client", "gate-router"))
    for kind in STAGE_CONTRACTS:
        key = "job" if kind is StageType.INGEST else "document"
        writers = "gate-router, ingest" if kind is StageType.INGEST else "the stage before, gate-router"
        rows.append(_topic(kind.topic, [requested], key, writers, kind.service))
    rows.append(_topic(topics.GATE, [requested], "document", "the stage before a gate or join", "gate-router"))
    lifecycle = [each for each in messages.EventType if ".orchestration." in each]
    told = [messages.EventType.JOB_ADMITTED, messages.EventType.JOB_REJECTED, messages.EventType.JOB_COMPLETED]
    rows.append(_topic(topics.LIFECYCLE, [*told, *lifecycle], "document or job", "every service", "ledger, any client"))
    rows.append(_topic(topics.MINERU_QUEUE, [messages.EventType.PDF_REQUESTED], "document", "gate-router", "mineru"))
    letter = "every service; the message as it was, with the reason in the header `medkg_dead_letter`"
    rows.append(_topic(topics.DEAD_LETTER, [], "as it was", letter, "operators"))
    change = [messages.EventType.BREAKER_CHANGED]
    rows.append(_topic(topics.BREAKERS, change, "breaker", "stage services", "stage services; compacted"))
    intro = (
        "Every message is a CloudEvent 1.0 in Kafka binary mode: its attributes are `ce_` headers, its data is the "
        "JSON value. The data of each event type is described in [schemas](schemas). A stage's topic follows from its "
        "type; two stages of one type share it."
    )
    return {"topics.md": _page("Topics", intro, rows)}


def settings_table() -> Files:
    """Every environment variable of every service."""
    intro = (
        "Settings are environment variables; they are read when a process starts, and a wrong one stops it there. "
        "`medkg up` sets those of the data folder, the database and the broker from its own options. The credentials "
        "of an S3 blob store come from the usual `AWS_` variables. What a stage is told about its work stands in the "
        "topology (`with:`), not here; the command line has [settings of its own](cli.md)."
    )
    return {"settings.md": _page("Settings", intro, [*processes.settings_lines()][:-1])}


def metrics_table() -> Files:
    """Every Prometheus metric."""
    intro = (
        "Every process shows these at `/metrics` of its health port (`MEDKG_HTTP_PORT`); a fleet of `medkg up` shows "
        "those of all its services together. The gateway shows those of its own process at `/metrics` too. A histogram "
        "has the series `_bucket`, `_sum` and `_count`."
    )
    return {"metrics.md": _page("Metrics", intro, [*processes.metric_lines()][:-1])}


def openapi() -> Files:
    """The gateway's OpenAPI document."""
    return {"openapi.json": processes.openapi_text()}


def command_table() -> Files:
    """Every command of ``medkg`` with its options."""
    intro = "What `--help` says of every command, on one page. `-h` is short for `--help` everywhere."
    return {"cli.md": _page("The command line", intro, [*processes.command_lines()][:-1])}


GENERATORS: tuple[Callable[[], Files], ...] = (
    schemas,
    error_table,
    topic_table,
    settings_table,
    metrics_table,
    openapi,
    command_table,
)


def main(arguments: list[str] | None = None, reference: Path = REFERENCE) -> int:
    """Write or check the reference; the exit status."""
    parser = argparse.ArgumentParser(description="Write docs/reference from the code.")
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if something would change")
    is_check = parser.parse_args(arguments).check
    drifted = drift(reference)
    for path, text in drifted.items():
        if is_check:
            print(f"{path}: {'is out of date' if text is not None else 'belongs to no generator'}")  # noqa: T201 - a command
        elif text is None:
            path.unlink()
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    if is_check and drifted:
        print("run: python docs/generate.py")  # noqa: T201 - a command
    return 1 if is_check and drifted else 0


def drift(reference: Path) -> dict[Path, str | None]:
    """Files that are not as the code says, with what they should hold; None for those that should not be there."""
    wanted: dict[Path, str] = {}
    for generator in GENERATORS:
        wanted |= {reference / name: text for name, text in generator().items()}
    present = {path for path in reference.rglob("*") if path.is_file()}
    changed = {path: text for path, text in wanted.items() if path not in present or path.read_text("utf-8") != text}
    return dict(sorted((dict.fromkeys(present - set(wanted)) | changed).items()))


def kebab(name: str) -> str:
    """``StageRequest`` as ``stage-request``: the name of a schema."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", name).lower()


def _any_json(custom: type) -> dict[str, Any]:
    """The schema of what may be any JSON: an inline artefact, a selection."""
    if custom in (object, msgspec.Raw):
        return {"description": "Any JSON value."}
    raise NotImplementedError(f"describing {custom}: no JSON Schema is known for it")


def _schema_text(name: str, content: dict[str, Any]) -> str:
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": schema_uri(name)}
    return json.dumps(head | _tidy(content), indent=2, ensure_ascii=False, sort_keys=True) + "\n"


def _tidy(content: Any) -> Any:
    """The schema with its descriptions freed of the indentation of the code."""
    if isinstance(content, list):
        return [_tidy(each) for each in content]
    if isinstance(content, dict):
        return {
            key: inspect.cleandoc(each) if key == "description" and isinstance(each, str) else _tidy(each)
            for key, each in content.items()
        }
    return content


def _meanings_of_errors() -> dict[str, str]:
    """What the tree in the docstring of the errors module says of each error."""
    line = re.compile(
        r"^[\s│├└─]*(?P<name>[A-Z]\w+)(?: {2,}| )?(?P<meaning>.*?)(?: +\(retry\))? {2,}(?P<code>[a-z_]+)$"
    )
    found = {errors.MedkgError.__name__: "the root of all errors"}
    for text in (errors.__doc__ or "").splitlines():
        match = line.match(text)
        if match:
            found[match["name"]] = match["meaning"].strip()
    return found


def _topic(name: str, types: list[messages.EventType], key: str, writer: str, reader: str) -> str:
    shown = "<br>".join(f"`{each}`" for each in types) or "any"
    return f"| `{name}` | {shown} | {key} | {writer} | {reader} |"


def _page(title: str, intro: str, rows: list[str]) -> str:
    return "\n".join([f"# {title}", "", "Generated from the code by `docs/generate.py`.", "", intro, "", *rows, ""])


if __name__ == "__main__":
    sys.exit(main())
