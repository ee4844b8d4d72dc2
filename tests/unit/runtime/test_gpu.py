"""A stage that needs a GPU says so where there is none, and nothing falls back to the CPU."""

from pathlib import Path
from typing import Any

import pytest
from tests.unit.runtime.stage_kit import (
    Told,
    bench,
    counted,
    document_of,
    event,
    header,
    implementation,
    record,
    request,
    topology,
)

from medkg.contracts.errors import GpuNotAvailable
from medkg.contracts.implementation import Host
from medkg.contracts.stages import StageType
from medkg.runtime.blobs import open_blobs
from medkg.runtime.exits import Exit
from medkg.runtime.gpu import check_gpu, cuda_devices
from medkg.runtime.process import run_process
from medkg.runtime.registry import OpenStages


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


def needing(**fields: Any) -> Any:
    return implementation(StageType.EMBED, Told(lambda ctx, value: value), needs_gpu=True, **fields)


@pytest.mark.parametrize("visible", ["", "-1", "NoDevFiles", "-1,0"])
def test_devices_that_are_hidden_are_not_there(visible: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert cuda_devices() == 0


class FakeDriver:
    """NVML of a machine with two devices."""

    def __init__(self, starts: bool = True) -> None:
        self.starts = starts
        self.is_shut_down = False

    def nvmlInit_v2(self) -> int:
        return 0 if self.starts else 9  # NVML_ERROR_DRIVER_NOT_LOADED

    def nvmlDeviceGetCount_v2(self, count: Any) -> int:
        count._obj.value = 2
        return 0

    def nvmlShutdown(self) -> int:
        self.is_shut_down = True
        return 0


def test_the_driver_is_asked_and_left_again(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = FakeDriver()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setattr("ctypes.CDLL", lambda name: driver)
    assert cuda_devices() == 2
    assert driver.is_shut_down


def test_a_driver_that_does_not_start_has_no_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr("ctypes.CDLL", lambda name: FakeDriver(starts=False))
    assert cuda_devices() == 0


def test_the_error_says_what_needs_it_and_what_to_do() -> None:
    with pytest.raises(GpuNotAvailable, match=r"opening embed.told: it needs a GPU.*CUDA_VISIBLE_DEVICES.*`uses`"):
        check_gpu(needing())
    check_gpu(needing(), devices=1)
    check_gpu(needing(gpu_is_remote=True))
    check_gpu(implementation(StageType.EMBED, None))


async def test_a_default_that_needs_one_is_not_opened() -> None:
    made = needing()
    async with OpenStages({"told": made}, Host(Path("/nowhere"), open_blobs("memory:"))) as stages:
        with pytest.raises(GpuNotAvailable):
            await stages.open_default()


async def test_documents_of_one_named_by_uses_fail_at_once_and_the_service_goes_on() -> None:
    pinned, stage = topology(), Told(document_of)
    async with bench(StageType.PARSE, stage, pinned, needs_gpu=True) as at:
        for offset in range(300):  # far beyond what stops a worker
            letter, failed = await at.handle(record(request(pinned, doc_id=f"doc-{offset}"), offset=offset))
        assert counted(at.metrics, "medkg_stage_retries_total", {"stage": "parse", "code": "gpu_unavailable"}) == 0
    failure = event(failed).failure
    assert failure is not None
    assert (failure.code, failure.disposition, failure.retryable) == ("gpu_unavailable", "failed", False)
    assert header(failed, "ce_errorcode") == "org.medicalkg.error.gpu_unavailable"
    assert stage.calls == []
    assert letter.value


def test_a_process_without_its_gpu_ends_with_a_code_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["medkg-embed"])

    async def main(settings: object, kafka: object) -> int:
        raise GpuNotAvailable("opening embed.splade: it needs a GPU")

    with pytest.raises(SystemExit) as ended:
        run_process(main)
    assert (ended.value.code, int(Exit.NO_GPU)) == (Exit.NO_GPU, 3)
