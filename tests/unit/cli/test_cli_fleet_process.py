"""A fleet of one's own: waited for, and stopped whatever happens. `medkg up` itself and what it hands on."""

import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from typer.testing import Result

from medkg.cli import fleet_process
from medkg.cli.exits import CommandError, TimedOut
from medkg.cli.fleet_process import Fleet, running_fleet
from medkg.cli.session import SystemClock
from medkg.local.folder import read_note

Medkg = Callable[..., Result]

# A stand-in for `medkg up`: notes where it is, then waits to be told to stop, and says that it drained.
STAND_IN = """
import json, os, pathlib, signal, sys, time
data = pathlib.Path(sys.argv[sys.argv.index("--data") + 1])
def drain(*_):
    (data / "drained").touch()
    sys.exit(0)
signal.signal(signal.SIGTERM, drain)
print("starting [fleet]\\x1b[31m", flush=True)
if {ready}:
    (data / "new").write_text(json.dumps({{"pid": os.getpid(), "gateway_url": "http://x:1", "broker": "x:2"}}))
    (data / "new").rename(data / "fleet.json")
{then}
time.sleep(60)
"""


def stand_in(*, ready: bool = True, then: str = "") -> list[str]:
    return [sys.executable, "-c", STAND_IN.format(ready=ready, then=then)]


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def pid_of(data_dir: Path) -> int:
    return int(str(read_note(data_dir)["pid"]))


def test_a_fleet_is_waited_for_and_drained_at_the_end(tmp_path: Path) -> None:
    with running_fleet(tmp_path, tmp_path, SystemClock(), stand_in()) as fleet:
        assert fleet == Fleet("http://x:1", "x:2", tmp_path / "fleet.log")
        pid = pid_of(tmp_path)
        assert os.getpgid(pid) == pid  # Ctrl-C on our terminal does not reach it
    assert (tmp_path / "drained").exists()
    assert not is_alive(pid)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError])
def test_a_fleet_is_stopped_whatever_goes_wrong(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), running_fleet(tmp_path, tmp_path, SystemClock(), stand_in()):
        pid = pid_of(tmp_path)
        raise error
    assert (tmp_path / "drained").exists()
    assert not is_alive(pid)


def test_a_sigterm_to_us_stops_the_fleet_too(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as caught, running_fleet(tmp_path, tmp_path, SystemClock(), stand_in()):
        pid = pid_of(tmp_path)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)  # the signal ends this at once
    assert caught.value.code == 143
    assert not is_alive(pid)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_fleet_that_does_not_drain_is_ended_with_all_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet_process, "STOP_SECONDS", 0.3)
    child = f"import subprocess; c = subprocess.Popen([{sys.executable!r}, '-c', 'import time; time.sleep(60)'])"
    stubborn = f"signal.signal(signal.SIGTERM, signal.SIG_IGN); {child}; (data / 'child').write_text(str(c.pid))"
    with running_fleet(tmp_path, tmp_path, SystemClock(), stand_in(then=stubborn)):
        pid, deadline = pid_of(tmp_path), time.monotonic() + 10
        while not (tmp_path / "child").exists() or not (tmp_path / "child").read_text():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        child_pid = int((tmp_path / "child").read_text())
    assert not is_alive(pid)
    deadline = time.monotonic() + 10
    while is_alive(child_pid) and Path(f"/proc/{child_pid}/stat").read_text().split()[2] != "Z":
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_fleet_that_ends_early_shows_the_end_of_its_log(tmp_path: Path) -> None:
    (tmp_path / "fleet.json").write_text('{"pid": 1, "gateway_url": "http://old:1", "broker": "old:2"}')
    broken = stand_in(ready=False, then="print('no [port] left', flush=True); sys.exit(7)")
    with pytest.raises(CommandError) as caught, running_fleet(tmp_path, tmp_path, SystemClock(), broken):
        pytest.fail("it never was ready: the note is of an older fleet")
    assert "exit code 7" in caught.value.message
    assert "  starting [fleet]\n  no [port] left" in caught.value.message


def test_a_fleet_that_is_never_ready_times_out_and_is_stopped(tmp_path: Path, clock: Any) -> None:
    with pytest.raises(TimedOut), running_fleet(tmp_path, tmp_path, clock, stand_in(ready=False)):
        pytest.fail("it is not ready")


@dataclass(frozen=True)
class FleetOptions:
    data_dir: Path
    broker: str
    services: tuple[str, ...]
    gateway_port: int
    database_url: str
    files_roots: tuple[Path, ...]
    topologies_dir: Path | None


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[FleetOptions]:
    """A stand-in for the fleet; what it was started with."""
    options: list[FleetOptions] = []
    module = ModuleType("medkg.local.fleet")
    module.FleetOptions = FleetOptions  # type: ignore[attr-defined]  # a module made by hand has no declared names

    def run_fleet(given: FleetOptions) -> int:
        options.append(given)
        return 7

    module.run_fleet = run_fleet  # type: ignore[attr-defined]  # as above
    monkeypatch.setitem(sys.modules, "medkg.local.fleet", module)
    return options


def test_up_hands_its_options_on_and_ends_as_the_fleet_does(medkg: Medkg, started: list[FleetOptions]) -> None:
    flags = "--data d --broker k1:9092,k2:9092 --services chunk,embed --port 0 --database postgresql://u@h/d"
    result = medkg("up", *flags.split(), "--files-root", "/a", "--files-root", "/b", "--topologies", "t")
    assert result.exit_code == 7
    assert started == [
        FleetOptions(
            data_dir=Path("d"),
            broker="k1:9092,k2:9092",
            services=("chunk", "embed"),
            gateway_port=0,
            database_url="postgresql://u@h/d",
            files_roots=(Path("/a"), Path("/b")),
            topologies_dir=Path("t"),
        )
    ]


def test_up_alone_is_the_whole_embedded_fleet(medkg: Medkg, started: list[FleetOptions]) -> None:
    medkg("up")
    assert started == [FleetOptions(Path(".medkg"), "embedded", (), 8750, "", (), None)]


@pytest.mark.parametrize("flags", ["--broker kafka", "--broker :9092", "--broker k:0", "--broker k:x", "--port 70000"])
def test_up_refuses_addresses_that_cannot_be(medkg: Medkg, started: list[FleetOptions], flags: str) -> None:
    assert medkg("up", *flags.split()).exit_code == 2
    assert started == []
