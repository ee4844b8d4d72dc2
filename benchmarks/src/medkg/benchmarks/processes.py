"""Starting the processes of a system, and ending them whatever happens."""

import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import psutil

_STOP_TIMEOUT_SECONDS = 40


@contextmanager
def started(commands: Mapping[str, list[str]], environment: Mapping[str, str]) -> Iterator[dict[str, psutil.Process]]:
    """One Python process a name, ``python ARGUMENTS``; ended with SIGTERM, and SIGKILL for one that does not listen."""
    running: dict[str, subprocess.Popen[bytes]] = {}
    try:
        for name, arguments in commands.items():
            running[name] = subprocess.Popen([sys.executable, *arguments], env=dict(environment))
        yield {name: psutil.Process(process.pid) for name, process in running.items()}
    finally:
        for process in running.values():
            process.send_signal(signal.SIGTERM)
        for process in running.values():
            try:
                process.wait(timeout=_STOP_TIMEOUT_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(timeout=5)


def check_alive(processes: Mapping[str, psutil.Process]) -> None:
    """Waiting for a process that has ended would be in vain.

    Raises:
        RuntimeError: one of them has; what it said stands above.
    """
    for name, process in processes.items():
        if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
            raise RuntimeError(f"the process {name} has ended; what it said last stands above")
