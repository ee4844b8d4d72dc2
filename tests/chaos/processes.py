"""The fleet as it is deployed: every service a process of its own, started again whenever it ends."""

import os
import resource
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.servers.tied import start_tied

STAGES = ("ingest", "parse", "validate", "chunk", "embed", "index", "extract", "kg")
SERVICES = (*STAGES, "gate_router", "ledger", "gateway")
_RESTART_SECONDS = 0.3
_LOOK_SECONDS = 0.05


@dataclass
class Replica:
    """One process of a service. ``ends`` are the exit codes of its predecessors that nobody had killed."""

    name: str
    number: int
    process: subprocess.Popen[bytes]
    is_killed: bool = False
    starts: int = 1
    ends: list[int] = field(default_factory=list)


class Fleet:
    """Processes under a supervisor, as a container platform would have them. A context manager."""

    def __init__(self, environment: dict[str, str], folder: Path, replicas: dict[str, int]) -> None:
        self._environment = os.environ | environment
        self._folder = folder
        self._replicas = replicas
        self._is_over = threading.Event()
        self._lock = threading.Lock()
        self._supervisor = threading.Thread(target=self._supervise, name="supervisor", daemon=True)
        self.all: list[Replica] = []

    def __enter__(self) -> Self:
        for name in SERVICES:
            for number in range(self._replicas.get(name, 1)):
                self.all.append(Replica(name, number, self._start(name, number)))
        self._supervisor.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over.set()
        self._supervisor.join(timeout=10)
        for one in self.all:
            self._signal(one, signal.SIGCONT)
            self._signal(one, signal.SIGTERM)
        deadline = time.monotonic() + 25
        for one in self.all:
            try:
                one.process.wait(timeout=max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                one.process.kill()
                one.process.wait(timeout=5)

    def of(self, name: str) -> list[Replica]:
        """The replicas of a service."""
        return [one for one in self.all if one.name == name]

    def pids_of(self, name: str) -> frozenset[int]:
        """The processes of a service as they are now."""
        return frozenset(one.process.pid for one in self.of(name))

    def kill(self, one: Replica) -> None:
        """``kill -9``."""
        with self._lock:
            one.is_killed = True
            self._signal(one, signal.SIGKILL)

    def freeze(self, one: Replica) -> None:
        self._signal(one, signal.SIGSTOP)

    def thaw(self, one: Replica) -> None:
        self._signal(one, signal.SIGCONT)

    def fill_disk(self, one: Replica, *, is_full: bool) -> None:
        """Let no file of a process grow: what a full disk does, for this process alone."""
        _, hard = resource.prlimit(one.process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(one.process.pid, resource.RLIMIT_FSIZE, (0 if is_full else hard, hard))

    def log_of(self, one: Replica) -> Path:
        """Where it writes."""
        return self._folder / f"{one.name}-{one.number}.log"

    def _start(self, name: str, number: int) -> subprocess.Popen[bytes]:
        log = self._folder / f"{name}-{number}.log"
        return start_tied([sys.executable, "-m", f"medkg.{name}"], log=log, env=self._environment)

    def _signal(self, one: Replica, number: signal.Signals) -> None:
        if one.process.poll() is None:
            os.kill(one.process.pid, number)

    def _supervise(self) -> None:
        while not self._is_over.wait(_LOOK_SECONDS):
            for one in self.all:
                code = one.process.poll()
                if code is None:
                    continue
                if not one.is_killed:
                    one.ends.append(code)
                if self._is_over.wait(_RESTART_SECONDS):
                    return
                with self._lock:
                    one.process = self._start(one.name, one.number)
                    one.is_killed = False
                    one.starts += 1
