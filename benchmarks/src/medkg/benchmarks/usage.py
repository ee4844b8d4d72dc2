"""CPU and memory of processes, read from the system while they run."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from medkg.benchmarks.loads import Usage


@dataclass(frozen=True, slots=True)
class Place:
    """Where a system is measured: the servers, and their processes where they are ours (else None: not measured)."""

    kafka: str
    database: str
    folder: Path
    kafka_pid: int | None = None
    postgresql_pid: int | None = None


@dataclass(slots=True)
class Meter:
    """Counts CPU from its making on. ``workers`` run the hops, ``coordination`` what a system needs beside them."""

    place: Place
    workers: Mapping[str, psutil.Process]
    coordination: Mapping[str, psutil.Process] = field(default_factory=dict)
    _before: dict[str, float] = field(init=False)

    def __post_init__(self) -> None:
        self._before = self._now()

    def read(self) -> Usage:
        """What was used since the meter was made, and the memory held now."""
        now = self._now()
        used = {name: now[name] - self._before[name] for name in now}
        groups = {"workers": sum(used[name] for name in self.workers)}
        if self.coordination:
            groups["coordination"] = sum(used[name] for name in self.coordination)
        servers = {name: used[name] for name in self._servers()}
        own = {**self.workers, **self.coordination}
        memory = {name: rss_mib(process) for name, process in own.items()}
        return Usage(groups | servers, {name: used[name] for name in own}, memory)

    def _now(self) -> dict[str, float]:
        own = {name: cpu_seconds(process) for name, process in {**self.workers, **self.coordination}.items()}
        return own | {name: cpu_seconds_of_tree(pid) for name, pid in self._servers().items()}

    def _servers(self) -> dict[str, int]:
        pids = {"kafka": self.place.kafka_pid, "postgresql": self.place.postgresql_pid}
        return {name: pid for name, pid in pids.items() if pid is not None}


def cpu_seconds(process: psutil.Process) -> float:
    """CPU of one process so far, user and system."""
    times = process.cpu_times()
    return float(times.user + times.system)


def cpu_seconds_of_tree(pid: int) -> float:
    """CPU of a server so far: its own, that of its living children, and that of those it has seen end."""
    server = psutil.Process(pid)
    times = server.cpu_times()
    total = float(times.user + times.system + times.children_user + times.children_system)
    for child in server.children(recursive=True):
        try:
            total += cpu_seconds(child)
        except psutil.NoSuchProcess:  # it ended just now
            continue
    return total


def rss_mib(process: psutil.Process) -> float:
    """Resident memory."""
    return round(process.memory_info().rss / 2**20, 1)
