"""What a process counts, in Prometheus' names and units."""

from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 600)


@dataclass(frozen=True, slots=True)
class WorkerMetrics:
    """The window of one worker."""

    taken: Counter
    finished: Counter
    in_flight: Gauge
    paused: Gauge
    unavailable: Counter
    held: Gauge


@dataclass(frozen=True, slots=True)
class StageMetrics:
    """The stages of one worker; labels ``stage`` and, for runs, ``outcome`` (completed, reused, failed, rejected)."""

    runs: Counter
    seconds: Histogram
    retries: Counter
    dead_letters: Counter


@dataclass(frozen=True, slots=True)
class ResilienceMetrics:
    """Limits, breakers and threads of one worker; label ``guard`` is SERVICE.IMPLEMENTATION/POLICY."""

    limit_wait: Histogram
    breakers_open: Gauge
    threads_given_up: Counter
    problems: Gauge


class Metrics:
    """The registry of a process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        worker = ("service",)
        self._taken = Counter("medkg_records_taken_total", "Records taken from Kafka.", worker, registry=self.registry)
        self._finished = Counter(
            "medkg_records_finished_total", "Records whose results are published.", worker, registry=self.registry
        )
        self._in_flight = Gauge("medkg_records_in_flight", "Records being worked on.", worker, registry=self.registry)
        self._paused = Gauge(
            "medkg_intake_paused",
            "1 while partitions are paused: the window is full, or the worker is held.",
            worker,
            registry=self.registry,
        )
        self._unavailable = Counter(
            "medkg_unavailable_total", "Times Kafka or a store did not answer.", worker, registry=self.registry
        )
        self._runs = Counter(
            "medkg_stage_runs_total", "Stage runs by outcome.", ("stage", "outcome"), registry=self.registry
        )
        self._seconds = Histogram(
            "medkg_stage_seconds",
            "Time a stage took for a document.",
            ("stage",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._retries = Counter(
            "medkg_stage_retries_total", "Attempts after the first.", ("stage", "code"), registry=self.registry
        )
        self._dead_letters = Counter(
            "medkg_dead_letters_total", "Messages given up.", ("stage", "code"), registry=self.registry
        )

        self._held = Gauge(
            "medkg_worker_paused",
            "1 while a worker takes nothing and more replicas would not help: leave its lag out of scaling.",
            ("service", "reason"),
            registry=self.registry,
        )
        guard = ("guard",)
        self._limit_wait = Histogram(
            "medkg_rate_limit_wait_seconds",
            "Time a run waited for its turn by a rate limit.",
            guard,
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._breakers_open = Gauge(
            "medkg_breakers_open", "Breakers that are open or half open.", guard, registry=self.registry
        )
        self._threads_given_up = Counter(
            "medkg_threads_given_up_total",
            "Threads left to themselves because their stage could not be interrupted.",
            ("service",),
            registry=self.registry,
        )
        self._problems = Gauge(
            "medkg_configuration_problems",
            "Files of topologies and policies that are refused; what was valid before is in force.",
            registry=self.registry,
        )

    def resilience(self, service: str) -> ResilienceMetrics:
        return ResilienceMetrics(
            self._limit_wait, self._breakers_open, self._threads_given_up.labels(service), self._problems
        )

    def worker(self, service: str) -> WorkerMetrics:
        return WorkerMetrics(
            self._taken.labels(service),
            self._finished.labels(service),
            self._in_flight.labels(service),
            self._paused.labels(service),
            self._unavailable.labels(service),
            self._held.labels(service, "breaker"),
        )

    @property
    def stages(self) -> StageMetrics:
        return StageMetrics(self._runs, self._seconds, self._retries, self._dead_letters)
