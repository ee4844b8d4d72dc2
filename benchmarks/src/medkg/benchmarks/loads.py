"""What a system under measurement is given to do, and what came of it."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from statistics import median

_SEED = 20  # the same gaps for every system and every run
_SLOWEST = 20  # documents/s below which a Kafka system counts as stuck
_GRACE_SECONDS = 120  # ten processes of Python start within, also on a busy machine


@dataclass(frozen=True, slots=True)
class Load:
    """So many documents: all at once, or (``per_second``) one after another whether or not the system keeps up.

    An open loop: arrivals do not wait for answers, so that a system that falls behind shows it in its latencies. Gaps
    are exponential as those of independent senders are, or all equal (``is_even``): then every document finds an idle
    system, if the rate is low. ``alone``: each document is submitted as a job of its own, where a system knows jobs.
    """

    documents: int
    per_second: float = 0.0
    is_even: bool = False
    alone: bool = False

    @property
    def deadline_seconds(self) -> float:
        """When to stop waiting for the last document."""
        return self.documents / (self.per_second or _SLOWEST) + self.documents / _SLOWEST + _GRACE_SECONDS

    def arrivals(self) -> Sequence[float]:
        """Seconds after the beginning at which each document arrives."""
        return arrivals(self.documents, self.per_second, is_even=self.is_even)


@lru_cache(maxsize=4)
def arrivals(documents: int, per_second: float, *, is_even: bool = False) -> tuple[float, ...]:
    """Arrival times in seconds, ascending, beginning at 0; the same for the same arguments. All 0 without a rate."""
    if not per_second:
        return (0.0,) * documents
    if is_even:
        return tuple(number / per_second for number in range(documents))
    gaps = random.Random(_SEED)
    times, now = [], 0.0
    for _ in range(documents):
        times.append(now)
        now += gaps.expovariate(per_second)
    return tuple(times)


@dataclass(frozen=True, slots=True)
class Usage:
    """What processes took: CPU by process group and by process, and resident memory in MiB by process.

    The groups are ``workers``, ``coordination``, ``kafka`` and ``postgresql``; a server that is not ours is absent.
    """

    cpu_seconds: dict[str, float]
    process_cpu_seconds: dict[str, float]
    rss_mib: dict[str, float]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a load went. ``latencies_ms`` is empty where every document arrived at once.

    A latency runs from a document's arrival (when it should have arrived, not when there was time to send it) to what
    the last hop says of its completion. ``hops_ms``, where arrival means more than the first hop's topic: from there.
    """

    seconds: float
    usage: Usage
    latencies_ms: tuple[float, ...] = ()
    hops_ms: tuple[float, ...] = ()


def percentiles(latencies_ms: Sequence[float]) -> dict[str, float]:
    """p50, p95, p99 and the greatest; the nearest rank, so each is a value that occurred. Empty for none."""
    if not latencies_ms:
        return {}
    ordered = sorted(latencies_ms)
    found = {f"p{percent}": ordered[-(-len(ordered) * percent // 100) - 1] for percent in (50, 95, 99)}
    return {name: round(value, 1) for name, value in (found | {"max": ordered[-1]}).items()}


def slope(points: Sequence[tuple[float, float]]) -> float:
    """How much y grows when x grows by one: the median of the slopes of all pairs of points (Theil and Sen).

    Some points that are far off do not move it. 0 for fewer than two different x.
    """
    pairs = combinations(points, 2)
    slopes = [(later - earlier) / (after - before) for (before, earlier), (after, later) in pairs if after != before]
    return median(slopes) if slopes else 0.0
