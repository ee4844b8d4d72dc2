"""A gateway that answers what a test tells it to, a clock that does not make anybody wait, and a way to run `medkg`."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import respx
from typer.testing import CliRunner, Result

from medkg.cli.app import app

GATEWAY = "http://gateway.test:8750"
JOB_ID = "3f0c2a91d4e85b6677aa0102030405ff"
STARTED = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)


class FakeClock:
    """Time passes only when somebody sleeps. ``at_sleep`` is called then, and may raise."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.at_sleep: Callable[[float], None] = lambda _: None

    def monotonic(self) -> float:
        return self.seconds

    def now(self) -> datetime:
        return STARTED + timedelta(seconds=self.seconds)

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds
        self.at_sleep(self.seconds)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def working_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to be in, with no configuration file above or beside it."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def gateway() -> Iterator[respx.MockRouter]:
    """The gateway; routes of its own are given by each test."""
    with respx.mock(base_url=GATEWAY, assert_all_called=False) as router:
        yield router


@pytest.fixture
def medkg(working_dir: Path, clock: FakeClock) -> Callable[..., Result]:
    """Run the command: ``medkg("search", "sciatica")``."""
    environment = {
        "HOME": str(working_dir / "home"),
        "XDG_CONFIG_HOME": None,
        "MEDKG_GATEWAY_URL": GATEWAY,
        "MEDKG_TENANT": None,
        "COLUMNS": "100",
        "NO_COLOR": None,
        "FORCE_COLOR": None,
    }

    def run(*args: str, env: dict[str, str] | None = None, **kwargs: Any) -> Result:
        return CliRunner().invoke(app, list(args), env=environment | (env or {}), obj=clock, **kwargs)

    return run


@pytest.fixture
def job() -> Callable[..., dict[str, Any]]:
    """A job as the gateway describes it; counts and fields by name."""

    def describe(state: str = "completed", **changes: Any) -> dict[str, Any]:
        counts = {"documents": 3, "completed": 3, "skipped": 0, "failed": 0, "rejected": 0, "in_flight": 0}
        counts |= {name: changes.pop(name) for name in list(changes) if name in counts}
        return {
            "job_id": JOB_ID,
            "tenant_id": "default",
            "source": "files",
            "state": state,
            "pipeline": {"name": "auto", "version": "1.0", "digest": "ab" * 32},
            "admitted_at": "2026-05-04T12:00:00.000Z",
            "finished_at": None if state in {"admitted", "running"} else "2026-05-04T12:00:04.500Z",
            "selection": {"paths": ["/x"]},
            "counts": counts,
            "pages": {"done": 1, "last_seen": True, "total_records": None},
            "stages": [
                {
                    "stage": "ingest",
                    "started": 1,
                    "completed": 1,
                    "failed": 0,
                    "retrying": 0,
                    "reused": 0,
                    "mean_ms": 8,
                },
                {"stage": "kg", "started": 3, "completed": 3, "failed": 0, "retrying": 0, "reused": 1, "mean_ms": 12.5},
            ],
            "waiting": [],
            "faults": [],
            "a_field_of_a_newer_gateway": {"x": 1},
            **changes,
        }

    return describe
