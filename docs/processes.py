"""What docs/reference says of medkg's processes, as lines of Markdown: settings, metrics, HTTP, the command line."""

import json
import re
from collections.abc import Iterator
from typing import Any, cast

import typer
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.metrics import MetricWrapperBase
from pydantic_settings import BaseSettings
from rich.text import Text

from medkg.chunk.settings import ChunkSettings
from medkg.cli.app import app
from medkg.cli.exits import EXIT_CODES
from medkg.download.settings import DownloadSettings
from medkg.embed.settings import EmbedSettings
from medkg.gate_router.settings import RouterSettings
from medkg.gateway.http import create_app
from medkg.gateway.parts import Parts
from medkg.gateway.searching import SearchSettings
from medkg.gateway.settings import GatewaySettings
from medkg.haystack.opensearch.settings import OpenSearchSettings
from medkg.ingest.settings import (
    ClinicalTrialsSettings,
    CoreSettings,
    FilesSettings,
    PmcFulltextSettings,
    UnpaywallSettings,
)
from medkg.ledger.projector import Projector
from medkg.ledger.schedule import Schedule
from medkg.ledger.settings import LedgerSettings
from medkg.mineru.metrics import MineruMetrics
from medkg.mineru.settings import MineruSettings
from medkg.runtime.metrics import Metrics
from medkg.runtime.settings import KafkaSettings, RuntimeSettings

SETTINGS: tuple[tuple[str, type[BaseSettings]], ...] = (
    ("Every service", RuntimeSettings),
    ("Kafka", KafkaSettings),
    ("The gate-router", RouterSettings),
    ("The ledger service", LedgerSettings),
    ("The gateway", GatewaySettings),
    ("The gateway's searches", SearchSettings),
    ("OpenSearch", OpenSearchSettings),
    ("Ingest: files", FilesSettings),
    ("Ingest: ClinicalTrials.gov", ClinicalTrialsSettings),
    ("Ingest: Unpaywall", UnpaywallSettings),
    ("Ingest: CORE", CoreSettings),
    ("Ingest: PMC full texts", PmcFulltextSettings),
    ("Download", DownloadSettings),
    ("The MinerU service", MineruSettings),
    ("Chunk", ChunkSettings),
    ("Embed", EmbedSettings),
)
COMPUTED = {"worker_id": "host name and process id"}  # defaults that differ from process to process, in words

_FORMATS = {"path": "path", "uri": "URL", "password": "secret"}
_TYPES = {"integer": "whole number", "number": "number", "boolean": "true or false", "string": "text"}


def settings_lines() -> Iterator[str]:
    """One table for each settings class."""
    for title, model in SETTINGS:
        yield from (f"## {title}", "", _first_paragraph(model.__doc__), "")
        yield from ("| variable | type | default | bounds | what it says |", "|---|---|---|---|---|")
        prefix = model.model_config.get("env_prefix", "")
        for name, found in model.model_json_schema()["properties"].items():
            row = (f"`{prefix}{name.upper()}`", _type(found), _default(name, found), _bounds(found))
            yield "| " + " | ".join((*row, _cell(found.get("description", "")))) + " |"
        yield ""


def metric_lines() -> Iterator[str]:
    """One row for each metric that a process of medkg's own may show."""
    registry = Metrics().registry
    MineruMetrics(registry)
    Projector(cast("Any", None), registry)  # registers what the ledger service counts; never asked to project
    Schedule(cast("Any", None), LedgerSettings(), registry)
    yield from ("| metric | kind | labels | what it says |", "|---|---|---|---|")
    for collector in registry._collector_to_names:  # no public way to list them before they are used
        wrapped = cast("MetricWrapperBase", collector)
        (family,) = wrapped.describe()
        name = f"{family.name}_total" if isinstance(wrapped, Counter) else family.name
        labels = ", ".join(f"`{label}`" for label in wrapped._labelnames) or "none"
        yield f"| `{name}` | {family.type} | {labels} | {_cell(family.documentation)} |"
    yield ""


def openapi_text() -> str:
    """The OpenAPI document of the gateway; no part of it is asked for anything."""
    nothing = cast("Any", None)
    parts = Parts(nothing, nothing, nothing, nothing, nothing, nothing, CollectorRegistry())
    return json.dumps(create_app(parts).openapi(), indent=2, ensure_ascii=False, sort_keys=True) + "\n"


def command_lines() -> Iterator[str]:
    """One section for each command, and the exit codes."""
    yield from _command("medkg", typer.main.get_command(app))
    yield from ("## Exit codes", "", "| code | meaning |", "|---:|---|")
    yield from (f"| {int(code)} | {_cell(meaning)} |" for code, meaning in EXIT_CODES)
    yield ""


def _command(name: str, command: Any) -> Iterator[str]:
    shown = [parameter for parameter in command.params if parameter.name not in {"help", "install_completion"}]
    shown = [parameter for parameter in shown if parameter.name != "show_completion"]
    arguments = [each for each in shown if each.param_type_name == "argument"]
    words = [name, *(f"[{_metavar(each)}]" if not each.required else _metavar(each) for each in arguments)]
    yield from (f"## {name}", "", _first_paragraph(command.help), "")
    if not hasattr(command, "commands"):
        yield from ("```", " ".join([*words, "[OPTIONS]"]), "```", "")
    if shown:
        yield from ("| | meaning | default |", "|---|---|---|")
        for each in shown:
            named = _metavar(each) if each in arguments else ", ".join(each.opts)
            metavar = "" if each in arguments or each.is_flag else f" {_metavar(each)}"
            yield f"| `{_cell(named + metavar)}` | {_cell(each.help or '')} | {_shown_default(each)} |"
        yield ""
    if command.epilog:
        yield from ("```", *_plain(command.epilog).split("\nExit codes\n")[0].strip().splitlines(), "```", "")
    for child_name, child in getattr(command, "commands", {}).items():
        yield from _command(f"{name} {child_name}", child)


def _metavar(parameter: Any) -> str:
    return str(parameter.metavar or parameter.name.upper())


def _shown_default(parameter: Any) -> str:
    if isinstance(parameter.show_default, str):
        return _cell(parameter.show_default)
    value = parameter.default
    return "" if value in (None, "", False, (), []) or callable(value) else f"`{value}`"


def _plain(markup: str) -> str:
    return Text.from_markup(markup).plain


def _type(found: dict[str, Any]) -> str:
    options = [each for each in found.get("anyOf", [found]) if each.get("type") != "null"]
    one: dict[str, Any] = options[0]
    if "enum" in one:
        return "one of " + ", ".join(f"`{word}`" for word in one["enum"])
    if one.get("type") == "array":
        return f"{_type(one.get('items', {'type': 'string'}))}s, separated like PATH"
    return _FORMATS.get(one.get("format", ""), _TYPES.get(one.get("type", ""), "text"))


def _default(name: str, found: dict[str, Any]) -> str:
    if name in COMPUTED:
        return COMPUTED[name]
    value = found.get("default")
    if value in (None, "", [], ()):
        return "none"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _bounds(found: dict[str, Any]) -> str:
    lowest, highest = found.get("minimum"), found.get("maximum")
    said = [f"at least {lowest:,}"] if lowest is not None else []
    if "exclusiveMinimum" in found:
        said.append(f"over {found['exclusiveMinimum']:,}")
    if highest is not None:
        said.append(f"at most {highest:,}")
    if "maxLength" in found and found.get("format") != "uri":
        said.append(f"at most {found['maxLength']} characters")
    if "pattern" in found:
        said.append(f"`{_cell(found['pattern'])}`")
    return ", ".join(said)


def _first_paragraph(text: str | None) -> str:
    return re.sub(r"``(.+?)``", r"`\1`", " ".join((text or "").strip().split("\n\n")[0].split()))


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
