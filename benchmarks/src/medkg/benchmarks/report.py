"""The results of a run as a table for people."""

from collections.abc import Mapping, Sequence
from typing import Any

from medkg.benchmarks.ratios import Change, ratios_of
from medkg.benchmarks.targets import target_lines

_LOADS = ("idle", "100/s", "30 %", "80 %")
_PERCENTILES = ("p50", "p95", "p99")


def report(results: Mapping[str, Any]) -> str:
    """Everything that was measured, in sections."""
    systems = results.get("systems", {})
    settings = results["settings"]
    parts = [[f"{settings['documents']} documents of {settings['bytes']} bytes, {machine(results['machine'])}"]]
    if systems:
        parts += [_throughput(systems), _latencies(systems), _memory(systems)]
    parts += [_lines(name, results[name]) for name in ("replicas", "overhead") if name in results]
    if "overhead" in results:
        parts.append(_stages(results["overhead"]["cpu_ms_per_document"]))
    if "fairness" in results:
        parts.append(_fairness(results["fairness"]))
    if "growth" in results:
        parts.append(_growth(results["growth"]))
    ratios = ratios_of(results)
    if ratios:
        parts.append(["ratios of this run", *(f"  medkg {name:<36} {r.value:>10.3f}" for name, r in ratios.items())])
    parts.append(target_lines(results))
    return "\n\n".join("\n".join(part) for part in parts if part)


def change_lines(found: Sequence[Change]) -> list[str]:
    """A comparison with what was recorded."""
    lines = [f"{'ratio':<36} {'recorded':>10} {'measured':>10} {'worse by':>9} {'allowed':>8}"]
    for change in found:
        mark = "  REGRESSION" if change.is_regression else ""
        lines.append(
            f"{change.name:<36} {change.recorded:>10.3f} {change.measured:>10.3f} "
            f"{change.worse_by:>8.1%} {change.tolerance:>8.0%}{mark}"
        )
    return lines


def machine(about: Mapping[str, Any]) -> str:
    """A machine in a line."""
    return f"{about['cores']} cores ({about['processor']}), {about['memory_gib']} GiB, Python {about['python']}"


def _throughput(systems: Mapping[str, Any]) -> list[str]:
    lines = [
        f"{'':<18} {'':>9} {'':>11}   CPU seconds per 1,000 documents",
        f"{'system':<18} {'docs':>9} {'docs/s':>11}   {'workers':>8} {'beside':>8} {'Kafka':>8} {'Postgres':>9} "
        f"{'us/hop':>8}",
    ]
    for name, found in systems.items():
        cpu = found["cpu_seconds_per_1000"]
        shown = [
            f"{cpu[part]:.2f}" if part in cpu else "-" for part in ("workers", "coordination", "kafka", "postgresql")
        ]
        rate = f"{found['documents_per_second']:.1f}" + ("*" if found["is_extrapolated"] else "")
        lines.append(
            f"{name:<18} {found['documents']:>9} {rate:>11}   {shown[0]:>8} {shown[1]:>8} {shown[2]:>8} {shown[3]:>9} "
            f"{found['worker_cpu_us_per_hop']:>8.0f}"
        )
    if any(found["is_extrapolated"] for found in systems.values()):
        lines.append("* from fewer documents than the others: its rate is taken to stay what it was")
    return lines


def _latencies(systems: Mapping[str, Any]) -> list[str]:
    if not any("latency_ms" in found for found in systems.values()):
        return []
    lines = [f"{'latency, ms':<18} {'load':<6} {'docs/s':>8} " + " ".join(f"{name:>9}" for name in _PERCENTILES)]
    for name, found in systems.items():
        for load in _LOADS:
            figures = found.get("latency_ms", {}).get(load)
            if figures is None:
                continue
            rows = [(name, figures)] + ([(f"{name}, 8 hops", figures["hops"])] if "hops" in figures else [])
            for label, row in rows:
                shown = " ".join(f"{row[percentile]:>9.1f}" for percentile in _PERCENTILES)
                lines.append(f"{label:<18} {load:<6} {figures['per_second']:>8.1f} {shown}")
    return lines


def _memory(systems: Mapping[str, Any]) -> list[str]:
    lines = [f"{'memory, MiB':<18} {'processes':>9} {'largest':>9} {'together':>9}"]
    for name, found in systems.items():
        held = found["rss_mib"].values()
        lines.append(f"{name:<18} {len(held):>9} {max(held):>9.0f} {sum(held):>9.0f}")
    return lines


def _lines(name: str, figures: Mapping[str, Any]) -> list[str]:
    return [name, *(f"  {key:<40} {value}" for key, value in figures.items() if not isinstance(value, dict))]


def _stages(cpu: Mapping[str, Any]) -> list[str]:
    lines = [f"{'CPU ms a document':<18} {'fleet':>9} {'plain':>9}"]
    return lines + [f"{stage:<18} {used['fleet']:>9.2f} {used['plain']:>9.2f}" for stage, used in cpu.items()]


def _fairness(found: Mapping[str, Mapping[str, float]]) -> list[str]:
    lines = [
        f"{'one document beside 100,000, ms':<32} {'idle':>8} {'busy':>8} {'worst':>8} {'ratio':>6} {'others/s':>9}"
    ]
    for name, row in found.items():
        lines.append(
            f"{name:<32} {row['idle_ms']:>8.0f} {row['busy_ms']:>8.0f} {row['busy_worst_ms']:>8.0f} "
            f"{row['ratio']:>6.2f} {row['other_tenant_per_second']:>9.1f}"
        )
    return lines


def _growth(growth: Mapping[str, Any]) -> list[str]:
    lines = [
        f"memory over {growth['documents']} documents",
        f"{'process':<14} {'MiB first':>10} {'last':>8} {'KiB per 1,000':>14}",
    ]
    for name, line in growth["processes"].items():
        figures = f"{line['first_mib']:>10.1f} {line['last_mib']:>8.1f} {line['kib_per_1000_documents']:>14.1f}"
        lines.append(f"{name:<14} {figures}")
    return lines
