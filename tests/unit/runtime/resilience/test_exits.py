"""How a process ends that must not go on."""

import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from medkg.contracts.stages import StageType
from medkg.runtime import serving as serving_module
from medkg.runtime.exits import Exit
from medkg.runtime.resilience.stopping import WorkerStopped
from medkg.runtime.service import stage_service
from medkg.runtime.serving import RunningService, readiness, run_until_stopped
from medkg.runtime.settings import KafkaSettings, RuntimeSettings

FULL = WorkerStopped("chunk stops: 101 documents in a row have failed")


@dataclass
class Dead:
    failure: BaseException | None


def at_work(failure: BaseException | None) -> RunningService:
    worker: Any = Dead(failure)
    nothing: Any = None
    return RunningService(stage_service(StageType.CHUNK), worker, nothing)


@pytest.mark.parametrize(
    ("failure", "code"), [(FULL, Exit.FAILING), (ZeroDivisionError("a bug"), Exit.DIED), (None, Exit.STOPPED)]
)
async def test_the_exit_code_says_why(
    failure: BaseException | None, code: Exit, monkeypatch: pytest.MonkeyPatch
) -> None:
    @asynccontextmanager
    async def running(services: Any, settings: Any, kafka: Any, fail: Callable[[], None]) -> AsyncIterator[Any]:
        if failure is not None:
            fail()
        else:
            signal.raise_signal(signal.SIGTERM)
        yield None, [at_work(failure)]

    monkeypatch.setattr(serving_module, "running", running)
    settings = RuntimeSettings(http_port=-1)
    assert await run_until_stopped([stage_service(StageType.CHUNK)], settings, KafkaSettings()) == code


def test_a_worker_that_has_stopped_is_not_ready_and_says_why() -> None:
    assert readiness([at_work(FULL)], is_stopping=False) == {"chunk": str(FULL)}
    assert readiness([at_work(None)], is_stopping=True) == {"stop": "the process is stopping"}
    assert readiness([at_work(None)], is_stopping=False) == {}
