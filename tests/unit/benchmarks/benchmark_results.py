"""Results as `make benchmark` writes them, small enough to see through."""

from typing import Any


def system(rate: float, worker_cpu: float) -> dict[str, Any]:
    """One system's figures."""
    paced = {"documents": 100, "per_second": 10.0, "p50": 5.0, "p95": 9.0, "p99": 12.0, "max": 20.0}
    idle = paced | {"hops": {"p50": 4.0, "p95": 8.0, "p99": 11.0, "max": 19.0}}
    return {
        "documents": 1_000,
        "documents_per_second": rate,
        "cpu_seconds_per_1000": {"workers": worker_cpu, "kafka": 0.5},
        "worker_cpu_us_per_hop": worker_cpu * 125,
        "rss_mib": {"hop-0": 40.0, "hop-1": 42.0},
        "latency_ms": {"idle": idle, "30 %": paced, "80 %": paced},
        "is_extrapolated": False,
    }


def results() -> dict[str, Any]:
    """A run of medkg and two peers, with everything but the long part."""
    return {
        "measured_at": "2026-01-01T00:00:00+00:00",
        "machine": {"processor": "x", "cores": 2, "memory_gib": 8, "python": "3.11.0"},
        "settings": {"documents": 1_000, "bytes": 1_900, "repeats": 1},
        "systems": {"medkg": system(1_000, 0.8), "bare": system(4_000, 0.2), "faststream-batch": system(500, 1.6)},
        "replicas": {"documents": 400, "ratio": 1.8},
        "overhead": {"documents": 40, "ratio": 1.05, "cpu_ms_per_document": {"parse": {"fleet": 2.0, "plain": 1.5}}},
    }
