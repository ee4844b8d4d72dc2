"""The figures that medkg is meant to reach, and whether a run reached them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from medkg.benchmarks.fleet import STAGES
from medkg.benchmarks.ratios import ratios_of

Results = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Target:
    """A bound on one figure; ``value`` finds it in the results, or raises KeyError where it was not measured."""

    name: str
    bound: float
    is_at_least: bool
    value: Callable[[Results], float]

    def line(self, results: Results) -> tuple[str, str, str]:
        """The figure, its bound, and ``yes``, ``NO`` or ``not measured``."""
        bound = f"{'at least' if self.is_at_least else 'at most'} {self.bound:g}"
        try:
            value = self.value(results)
        except KeyError:
            return "", bound, "not measured"
        holds = value >= self.bound if self.is_at_least else value <= self.bound
        return f"{value:.4g}", bound, "yes" if holds else "NO"


def _rate(peer: str) -> Callable[[Results], float]:
    return lambda results: ratios_of(results)[f"throughput / {peer}"].value


def _medkg(results: Results) -> Mapping[str, Any]:
    found: Mapping[str, Any] = results["systems"]["medkg"]
    return found


def _worst(figure: str) -> Callable[[Results], float]:
    def worst(results: Results) -> float:
        processes = results["growth"]["processes"]
        return float(max(processes[stage][figure] for stage in STAGES))

    return worst


TARGETS = (
    Target("documents/s over FastStream batch", 1.2, True, _rate("faststream-batch")),
    Target("documents/s over plain FastStream", 10, True, _rate("faststream")),
    Target("documents/s over the bare loop", 0.25, True, _rate("bare")),
    Target("documents/s over Dagster", 800, True, _rate("dagster")),
    Target("worker CPU a hop, us", 100, False, lambda results: float(_medkg(results)["worker_cpu_us_per_hop"])),
    Target("idle p95 through 8 hops, ms", 60, False, lambda r: float(_medkg(r)["latency_ms"]["idle"]["hops"]["p95"])),
    Target(
        "p95 at 100/s through 8 hops, ms", 150, False, lambda r: float(_medkg(r)["latency_ms"]["100/s"]["hops"]["p95"])
    ),
    Target(
        "beside a large job, busy stage: over idle", 3, False, lambda r: float(r["fairness"]["busy stage"]["ratio"])
    ),
    Target("beside a large job, no work: over idle", 3, False, lambda r: float(r["fairness"]["no work"]["ratio"])),
    Target("two replicas over one", 1.7, True, lambda results: float(results["replicas"]["ratio"])),
    Target("real stages: CPU over a plain loop", 1.1, False, lambda results: float(results["overhead"]["ratio"])),
    Target("largest RSS of a stage on a long run, MiB", 120, False, _worst("max_mib")),
    # 10 KiB: one MiB over 100,000 documents, which is what "flat" can mean for an allocator
    Target("steepest RSS slope, KiB/1,000 documents", 10, False, _worst("kib_per_1000_documents")),
)


def target_lines(results: Results) -> list[str]:
    """Every target with its figure, as text."""
    lines = [f"{'target':<44} {'measured':>10}  {'bound':<14} holds"]
    for target in TARGETS:
        value, bound, verdict = target.line(results)
        lines.append(f"{target.name:<44} {value:>10}  {bound:<14} {verdict}")
    return lines
