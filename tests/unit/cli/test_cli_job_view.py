"""The display of a job: what it shows on a terminal, and what it works out from looking now and then."""

import io
import json
from collections.abc import Callable
from typing import Any

import httpx
import msgspec
import pytest
import respx
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from medkg.cli.answers import Job
from medkg.cli.client import GatewayClient
from medkg.cli.progress import WINDOW_SECONDS, JobProgress, expected_documents
from medkg.cli.session import Session
from medkg.cli.settings import Settings
from medkg.cli.watching import watch_job

Describe = Callable[..., dict[str, Any]]
JOB_ID = "3f0c2a91d4e85b6677aa0102030405ff"
GATEWAY = "http://gateway.test:8750"


def read(described: dict[str, Any]) -> Job:
    return msgspec.convert(described, Job)


def test_the_live_display_shows_bars_rates_waits_and_time_left(
    gateway: respx.MockRouter, job: Describe, clock: Any
) -> None:
    def look(done: int) -> httpx.Response:
        stages = [
            {"stage": "ingest", "started": 2, "completed": 1, "mean_ms": 800},
            {
                "stage": "parse",
                "started": done,
                "completed": done,
                "failed": 1,
                "retrying": 2,
                "reused": 1,
                "mean_ms": 4,
            },
        ]
        waiting = [{"kind": "gate", "count": 1, "oldest_since": "2026-05-04T11:59:00Z", "detail": "pdf_ir_ready"}]
        pages = {"done": 1, "last_seen": False, "total_records": 100}
        described = job("running", documents=40, completed=done, in_flight=40 - done, pages=pages)
        return httpx.Response(200, json=described | {"stages": stages, "waiting": waiting})

    gateway.get(f"/v1/jobs/{JOB_ID}").mock(
        side_effect=[look(0), *(look(number) for number in range(2, 12)), httpx.Response(200, json=job())]
    )
    output = io.StringIO()
    console = Console(file=output, force_terminal=True, color_system=None, width=100, height=40, markup=False)
    session = Session(Settings(gateway=GATEWAY), out=console, err=console, clock=clock)
    with GatewayClient(GATEWAY) as client:
        ended = watch_job(session, client, JOB_ID)
    shown = output.getvalue()
    assert ended.state == "completed"
    assert "40 of 100 documents read" in shown
    assert "1 +2 retrying" in shown
    assert "━" in shown
    assert "1 document at a gate for 1 min" in shown
    assert "pdf_ir_ready" in shown
    assert "/s" in shown
    assert "left" in shown
    assert "✓ job 3f0c2a91d4e8  completed" in shown


@pytest.mark.parametrize(
    ("pages", "state", "expected"),
    [
        ({"done": 1, "last_seen": False, "total_records": None}, "running", None),
        ({"done": 1, "last_seen": False, "total_records": 50}, "running", 50),
        ({"done": 1, "last_seen": True, "total_records": 50}, "running", 3),
        ({"done": 1, "last_seen": False, "total_records": 2}, "running", 3),
        ({"done": 1, "last_seen": False, "total_records": None}, "completed", 3),
    ],
)
def test_how_many_documents_there_will_be_is_only_said_when_known(
    job: Describe, pages: dict[str, Any], state: str, expected: int | None
) -> None:
    assert expected_documents(read(job(state, pages=pages))) == expected


def test_the_rate_is_that_of_the_last_seconds(job: Describe) -> None:
    progress = JobProgress()
    for second in range(60):
        done = second if second < 30 else 30 + (second - 30) * 4
        progress.observe(read(job("running", documents=1000, completed=done)), float(second))
    assert progress.rate() == pytest.approx(4.0)
    assert progress.seconds_left(read(job("running", documents=1000, completed=146))) == pytest.approx(854 / 4)


def test_without_two_looks_there_is_no_rate_and_no_time_left(job: Describe) -> None:
    progress = JobProgress()
    described = read(job("running", documents=10, completed=1))
    assert progress.seconds_left(described) is None
    progress.observe(described, 1.0)
    assert (progress.rate(), progress.rate("kg"), progress.rate("unheard of")) == (0.0, 0.0, 0.0)


@given(st.lists(st.tuples(st.floats(0.01, 20), st.integers(0, 50)), min_size=1, max_size=200))
def test_rates_are_never_negative_and_memory_stays_within_the_window(steps: list[tuple[float, int]]) -> None:
    progress, now, done = JobProgress(), 0.0, 0
    looked_at = []
    for pause, more in steps:
        now, done = now + pause, done + more
        looked_at.append(now)
        counts = {"documents": done, "completed": done}
        progress.observe(msgspec.convert({"job_id": "j", "state": "running", "counts": counts}, Job), now)
        assert progress.rate() >= 0
        kept = len(progress._series[""])
        assert kept <= 2 + sum(at > now - WINDOW_SECONDS for at in looked_at)


def test_a_job_says_why_documents_failed_and_what_to_do_about_it(
    gateway: respx.MockRouter, job: Describe, clock: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    failures = [{"code": "gpu_unavailable", "stage": "embed", "count": 3, "remedy": "run it where a \x1b[31mGPU is"}]
    failures += [{"code": f"code_{number}", "stage": "", "count": 1, "remedy": ""} for number in range(6)]
    described = job("completed_with_failures", documents=9, completed=0, failed=9) | {"failures": failures}
    gateway.get(f"/v1/jobs/{JOB_ID}").respond(json=described)
    gateway.get(f"/v1/jobs/{JOB_ID}/documents").respond(json={"documents": [], "next": None})
    errors = io.StringIO()
    out, err = (Console(file=file, color_system=None, width=100, markup=False) for file in (None, errors))
    session = Session(Settings(gateway=GATEWAY), out=out, err=err, clock=clock, as_json=True)
    with GatewayClient(GATEWAY) as client:
        watch_job(session, client, JOB_ID)
    shown = errors.getvalue()
    assert "3 gpu_unavailable at embed" in shown
    assert "GPU is" in shown
    assert "\x1b" not in shown
    assert "and 2 more reasons" in shown
    assert json.loads(capsys.readouterr().out)["failures"] == failures
