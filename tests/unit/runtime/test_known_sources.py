"""Sources of installed packages may be named by a job."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import EntryPoint, EntryPoints
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict

from medkg.contracts.document import AdapterRequest, IngestPage
from medkg.contracts.errors import ConfigurationError
from medkg.contracts.jobs import SELECTIONS, check_submission
from medkg.contracts.sources import SourceDefinition
from medkg.runtime import sources


class PreprintSelection(BaseModel):
    model_config = ConfigDict(extra="forbid")

    subject: str


class Preprints:
    async def read(self, request: AdapterRequest) -> IngestPage:
        return IngestPage(())


@asynccontextmanager
async def _open() -> AsyncIterator[Preprints]:
    yield Preprints()


PREPRINTS = SourceDefinition("preprints", PreprintSelection, _open)
NO_SOURCE = object()


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Installs entry points that lead into this module."""

    def install(name: str, attribute: str) -> None:
        entry = EntryPoint(name, f"{__name__}:{attribute}", "medkg.sources")
        monkeypatch.setattr(EntryPoint, "load", lambda self: globals()[self.value.partition(":")[2]])
        monkeypatch.setattr(sources, "entry_points", lambda group: EntryPoints([entry]))

    return install


def test_a_job_may_name_the_source_of_an_installed_package(installed: Any) -> None:
    installed("preprints", "PREPRINTS")
    selections = sources.known_selections()
    assert set(selections) == {*SELECTIONS, "preprints"}

    good = b'{"tenant_id": "default", "source": "preprints", "selection": {"subject": "statins"}}'
    assert check_submission(good, selections)[1] == ()
    submission, faults = check_submission(good.replace(b"subject", b"topic"), selections)
    assert submission is None
    assert {fault.pointer for fault in faults} == {"/selection/subject", "/selection/topic"}


def test_without_the_package_its_source_is_unknown() -> None:
    event = b'{"tenant_id": "default", "source": "preprints", "selection": {"subject": "statins"}}'
    assert [fault.pointer for fault in check_submission(event, sources.known_selections())[1]] == ["/source"]


@pytest.mark.parametrize(("name", "attribute"), [("preprints", "NO_SOURCE"), ("other", "PREPRINTS")])
def test_what_is_no_source_of_that_name_is_refused_at_start(installed: Any, name: str, attribute: str) -> None:
    installed(name, attribute)
    with pytest.raises(ConfigurationError, match=f"loading source '{name}'"):
        sources.known_selections()
