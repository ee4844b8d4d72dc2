"""The stage finds the adapter of a source, and sources are found by their entry points."""

from contextlib import asynccontextmanager
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from medkg.contracts.context import StageContext
from medkg.contracts.document import AdapterRequest, IngestPage
from medkg.contracts.errors import ConfigurationError
from medkg.contracts.implementation import Host, Options
from medkg.contracts.jobs import FilesSelection
from medkg.contracts.sources import SourceDefinition
from medkg.ingest import app
from medkg.ingest.stage import IngestSources

CTX = StageContext("t", "", "job")


class Empty:
    async def read(self, request: AdapterRequest) -> IngestPage:
        return IngestPage(payloads=(), total=0)


@asynccontextmanager
async def open_empty() -> Any:
    yield Empty()


EMPTY = SourceDefinition("empty", FilesSelection, open_empty)
NO_SOURCE = object()


def entry(name: str, value: str) -> EntryPoint:
    return EntryPoint(name, value, "medkg.sources")


async def test_a_request_goes_to_the_adapter_of_its_source() -> None:
    page = await IngestSources({"empty": Empty()}).execute(CTX, AdapterRequest("empty", {}))
    assert page.total == 0


async def test_a_source_that_is_not_installed_is_named_with_those_that_are() -> None:
    with pytest.raises(ConfigurationError, match=r"'nope'.*empty"):
        await IngestSources({"empty": Empty()}).execute(CTX, AdapterRequest("nope", {}))


async def test_the_installed_stage_reads_both_sources_of_this_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDKG_INGEST_FILES_ROOTS", str(tmp_path))
    (tmp_path / "a.txt").write_text("words")
    assert {"files", "clinicaltrials"} <= app.installed_sources().keys()
    async with app.SOURCES.open(Options(), Host(tmp_path, blobs=None)) as stage:  # type: ignore[arg-type]  # it lends nothing here
        page = await stage.execute(CTX, AdapterRequest("files", {"paths": ["a.txt"]}))
    assert [payload.text for payload in page.payloads] == ["words"]


def test_a_package_adds_a_source_by_an_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "their_package", __import__("types").SimpleNamespace(EMPTY=EMPTY))
    monkeypatch.setattr(app, "entry_points", lambda group: [entry("empty", "their_package:EMPTY")])
    assert app.installed_sources() == {"empty": EMPTY}


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ([entry("x", "no_such_package:X")], "no_such_package"),
        ([entry("x", "medkg.ingest.stage:IngestSources")], "no SourceDefinition"),
        ([entry("other", "medkg.ingest.files.adapter:FILES")], "of that name"),
        ([entry("files", "medkg.ingest.files.adapter:FILES")] * 2, "two installed packages"),
    ],
)
def test_a_broken_entry_point_is_named(monkeypatch: pytest.MonkeyPatch, entries: list[EntryPoint], words: str) -> None:
    monkeypatch.setattr(app, "entry_points", lambda group: entries)
    with pytest.raises(ConfigurationError, match=words):
        app.installed_sources()
