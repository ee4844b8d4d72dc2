"""A fleet of one's own in a process of its own: started, waited for, and always stopped."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, MappingProxyType

from medkg.cli.exits import CommandError, TimedOut
from medkg.cli.session import Clock
from medkg.cli.terminal import clean
from medkg.local.folder import read_note

START_SECONDS = 120.0  # the first start also makes the database
STOP_SECONDS = 30.0  # longer than the fleet's own time to drain
_LOG_LINES = 12
_LOG_BYTES = 16_384


@dataclass(frozen=True, slots=True)
class Fleet:
    """A running fleet. ``broker`` is its Kafka, HOST:PORT; ``log`` what its services say."""

    gateway_url: str
    broker: str
    log: Path


@contextlib.contextmanager
def running_fleet(
    data_dir: Path,
    files_root: Path,
    clock: Clock,
    command: Sequence[str] = (sys.executable, "-m", "medkg.cli", "up"),
    environment: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[Fleet]:
    """An embedded fleet on ``data_dir``, on a free port. Stopped at the end, whatever the end is.

    ``environment`` is put over our own. It has a process group of its own, so that Ctrl-C reaches only us and it can
    drain in peace.

    Raises:
        CommandError: it ended before it was ready; the end of its log is in the message.
        TimedOut: it was not ready in time.
    """
    data_dir.mkdir(parents=True, exist_ok=True)
    said = data_dir / "up.log"
    flags = ["--data", str(data_dir), "--port", "0", "--files-root", str(files_root)]
    with _terminated_as_exit(), said.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603  our own interpreter and arguments
            [*command, *flags],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment},
            start_new_session=True,
        )
        try:
            yield _await_ready(process, data_dir, said, clock)
        finally:
            stop(process)


def stop(process: "subprocess.Popen[bytes]") -> None:
    """Ask the fleet to drain; if it does not end in time, or at a second Ctrl-C, end its whole process group."""
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        _kill(process)
    except BaseException:
        _kill(process)
        raise


def _kill(process: "subprocess.Popen[bytes]") -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # it leads its group
    process.wait(STOP_SECONDS)


def _await_ready(process: "subprocess.Popen[bytes]", data_dir: Path, said: Path, clock: Clock) -> Fleet:
    deadline = clock.monotonic() + START_SECONDS
    while True:
        known = read_note(data_dir)
        if known.get("pid") == process.pid:  # and not that of an older fleet
            return Fleet(str(known["gateway_url"]), str(known["broker"]), data_dir / "fleet.log")
        if process.poll() is not None:
            raise CommandError(
                f"the fleet ended with exit code {process.returncode} before it was ready:\n{_end_of(said)}"
            )
        if clock.monotonic() > deadline:
            raise TimedOut(f"the fleet was not ready within {START_SECONDS:g} s:\n{_end_of(said)}", hint=f"see {said}")
        clock.sleep(0.1)


def _end_of(file: Path) -> str:
    with file.open("rb") as output:
        output.seek(max(0, file.stat().st_size - _LOG_BYTES))
        lines = output.read().decode(errors="replace").splitlines()
    return "\n".join(f"  {clean(line)}" for line in lines[-_LOG_LINES:])


@contextlib.contextmanager
def _terminated_as_exit() -> Iterator[None]:
    """A SIGTERM or a closed terminal must not leave a fleet behind: it becomes SystemExit, and cleaning up runs."""

    def leave(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
