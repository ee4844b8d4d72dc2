"""What the MinerU service counts."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class MineruMetrics:
    """Meters of one process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.files = Counter(
            "medkg_mineru_files_total",
            "Files asked for, by what came of it: parsed, known, failed, unreadable.",
            ["outcome"],
            registry=registry,
        )
        self.at_work = Gauge("medkg_mineru_files_at_work", "Files that MinerU has just now.", registry=registry)
        self.breaker_open = Gauge(
            "medkg_mineru_breaker_open", "1 while MinerU is left alone after failures in a row.", registry=registry
        )
        self.seconds = Histogram(
            "medkg_mineru_parse_seconds",
            "Time from a request to its document.",
            buckets=(1, 5, 15, 60, 300, 900, 3_600, 14_400, 43_200),
            registry=registry,
        )
