"""Health and metrics over HTTP."""

import json
import urllib.request
from collections.abc import Iterator
from urllib.error import HTTPError

import pytest

from medkg.contracts.errors import ConfigurationError
from medkg.runtime.health import HealthServer
from medkg.runtime.metrics import Metrics


class Served:
    def __init__(self) -> None:
        self.live: dict[str, str] = {}
        self.ready: dict[str, str] = {}
        self.metrics = Metrics()
        self.server = HealthServer(
            "127.0.0.1", 0, self.metrics.registry, live=lambda: self.live, ready=lambda: self.ready
        )

    def get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://{self.server.address}{path}", timeout=10) as answer:
                return answer.status, answer.read().decode()
        except HTTPError as error:
            with error:
                return error.code, error.read().decode()


@pytest.fixture
def served() -> Iterator[Served]:
    made = Served()
    with made.server:
        yield made


def test_all_is_well_until_a_check_says_otherwise(served: Served) -> None:
    for path, checks in (("/health/live", served.live), ("/health/ready", served.ready)):
        status, body = served.get(path)
        assert (status, json.loads(body)) == (200, {"status": "ok", "faults": {}})
        checks["chunk"] = "there is work, but nothing was finished for 901 s"
        status, body = served.get(path)
        assert (status, json.loads(body)) == (503, {"status": "failing", "faults": checks})


def test_metrics_are_there_in_the_text_format_of_prometheus(served: Served) -> None:
    served.metrics.worker("chunk").taken.inc(3)
    served.metrics.stages.runs.labels("chunk", "completed").inc()
    status, body = served.get("/metrics")
    assert status == 200
    assert 'medkg_records_taken_total{service="chunk"} 3.0' in body
    assert 'medkg_stage_runs_total{outcome="completed",stage="chunk"} 1.0' in body


@pytest.mark.parametrize("path", ["/", "/health", "/health/live/", "/../etc/passwd", "/metricsx"])
def test_other_paths_say_where_to_look(served: Served, path: str) -> None:
    status, body = served.get(path)
    assert status == 404
    assert "/health/live" in body


def test_what_it_answers_with_can_be_put_in_its_place_while_it_serves(served: Served) -> None:
    served.ready["start"] = "waiting for Kafka"
    assert served.get("/health/ready")[0] == 503
    later = Metrics()
    later.worker("chunk").taken.inc(7)
    served.server.watch(later.registry, live=dict, ready=dict)
    assert served.get("/health/ready")[0] == 200
    assert 'medkg_records_taken_total{service="chunk"} 7.0' in served.get("/metrics")[1]


def test_an_address_that_is_taken_is_a_setting_to_mend(served: Served) -> None:
    host, port = served.server.address.split(":")
    with pytest.raises(ConfigurationError, match="MEDKG_HTTP_PORT"):
        HealthServer(host, int(port), served.metrics.registry, live=dict, ready=dict)


def test_nobody_answers_once_it_is_closed(served: Served) -> None:
    other = Served()
    with other.server:
        assert other.get("/health/live")[0] == 200
    with pytest.raises(OSError, match="refused"):
        other.get("/health/live")
