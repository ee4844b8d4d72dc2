"""What two machines can compare: medkg's figures divided by those of each peer in the same run."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# A bare loop's rate alone varies by a factor of two on a busy machine; CPU hardly at all.
THROUGHPUT_TOLERANCE = 0.30
CPU_TOLERANCE = 0.15


@dataclass(frozen=True, slots=True)
class Ratio:
    """One comparable figure. ``tolerance`` is the part by which it may get worse before that counts as a regression."""

    name: str
    value: float
    is_better_high: bool
    tolerance: float


@dataclass(frozen=True, slots=True)
class Change:
    """A ratio then and now. ``worse_by`` is negative where it got better."""

    name: str
    recorded: float
    measured: float
    worse_by: float
    tolerance: float

    @property
    def is_regression(self) -> bool:
        return self.worse_by > self.tolerance


def ratios_of(results: Mapping[str, Any]) -> dict[str, Ratio]:
    """The ratios of one run, by name; what was not measured is absent."""
    found: list[Ratio] = []
    systems = results.get("systems", {})
    ours = systems.get("medkg")
    for name, peer in systems.items():
        if ours is None or name == "medkg":
            continue
        rate = ours["documents_per_second"] / peer["documents_per_second"]
        found.append(Ratio(f"throughput / {name}", rate, True, THROUGHPUT_TOLERANCE))
        cpu = ours["cpu_seconds_per_1000"]["workers"] / peer["cpu_seconds_per_1000"]["workers"]
        found.append(Ratio(f"worker CPU / {name}", cpu, False, CPU_TOLERANCE))
    if "replicas" in results:
        found.append(Ratio("two replicas / one", results["replicas"]["ratio"], True, CPU_TOLERANCE))
    if "overhead" in results:
        found.append(Ratio("CPU of real stages / plain loop", results["overhead"]["ratio"], False, CPU_TOLERANCE))
    return {ratio.name: ratio for ratio in found}


def changes(recorded: Mapping[str, float], measured: Mapping[str, Ratio]) -> list[Change]:
    """What has changed since, for each ratio that both have."""
    found = []
    for name, ratio in measured.items():
        before = recorded.get(name)
        if before:
            grown = ratio.value / before - 1
            found.append(Change(name, before, ratio.value, -grown if ratio.is_better_high else grown, ratio.tolerance))
    return found


def to_record(results: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept of a run to compare later ones with."""
    kept = {name: results[name] for name in ("settings", "machine", "measured_at")}
    return kept | {"ratios": {name: float(f"{ratio.value:.4g}") for name, ratio in ratios_of(results).items()}}


def incomparable(recorded: Mapping[str, Any], results: Mapping[str, Any]) -> str:
    """Why two runs cannot be compared; empty when they can."""
    then, now = recorded["settings"], results["settings"]
    for name in ("documents", "bytes"):
        if then[name] != now[name]:
            return f"recorded with {name} {then[name]}, measured with {now[name]}: measure with the same"
    return ""
