"""`medkg watch` and `medkg jobs`: which job is meant, what is shown of it while it runs, and what is listed."""

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
import respx
from typer.testing import Result

Medkg = Callable[..., Result]
Job = Callable[..., dict[str, Any]]
JOB_ID = "3f0c2a91d4e85b6677aa0102030405ff"
OTHER_ID = "3f77" + "0" * 28
JOB_PATH = f"/v1/jobs/{JOB_ID}"


def test_a_whole_id_is_watched_without_looking_it_up(medkg: Medkg, gateway: respx.MockRouter, job: Job) -> None:
    gateway.get(JOB_PATH).respond(json=job())
    result = medkg("watch", JOB_ID)
    assert result.exit_code == 0
    assert "✓ job 3f0c2a91d4e8  completed in 4.5 s  files through auto 1.0" in result.stdout


def test_without_an_id_the_newest_job_is_watched(medkg: Medkg, gateway: respx.MockRouter, job: Job) -> None:
    listed = gateway.get("/v1/jobs").respond(json={"jobs": [job(), job(job_id=OTHER_ID)], "next": None})
    gateway.get(JOB_PATH).respond(json=job())
    assert medkg("watch", "--tenant", "lab").exit_code == 0
    assert listed.calls.last.request.url.params["tenant_id"] == "lab"


def test_the_beginning_of_an_id_is_enough_for_a_recent_job(medkg: Medkg, gateway: respx.MockRouter, job: Job) -> None:
    gateway.get("/v1/jobs").respond(json={"jobs": [job(job_id=OTHER_ID), job()], "next": None})
    gateway.get(JOB_PATH).respond(json=job())
    assert medkg("watch", "3F0").exit_code == 0


@pytest.mark.parametrize(("text", "code", "said"), [("3f", 2, "2 jobs begin with"), ("ee", 4, "begins with 'ee'")])
def test_an_unclear_or_unknown_beginning_is_an_error(
    medkg: Medkg, gateway: respx.MockRouter, job: Job, text: str, code: int, said: str
) -> None:
    gateway.get("/v1/jobs").respond(json={"jobs": [job(job_id=OTHER_ID), job()], "next": None})
    result = medkg("watch", text)
    assert result.exit_code == code
    assert said in result.stderr


def test_a_tenant_without_jobs_has_nothing_to_watch(medkg: Medkg, gateway: respx.MockRouter) -> None:
    gateway.get("/v1/jobs").respond(json={"jobs": [], "next": None})
    assert medkg("watch").exit_code == 4


def test_an_unknown_job_is_not_found(medkg: Medkg, gateway: respx.MockRouter) -> None:
    error = {"code": "not_found", "message": f"no job {JOB_ID}", "hint": "see the list"}
    gateway.get(JOB_PATH).respond(404, json={"error": error})
    result = medkg("watch", JOB_ID)
    assert result.exit_code == 4
    assert f"no job {JOB_ID}" in result.stderr


def test_plain_lines_say_what_waits_and_since_when(medkg: Medkg, gateway: respx.MockRouter, job: Job) -> None:
    waiting = [{"kind": "page", "count": 2, "oldest_since": "2026-05-04T11:59:48Z", "detail": "64 in flight"}]
    running = job("running", completed=1, in_flight=2, waiting=waiting)
    gateway.get(JOB_PATH).mock(side_effect=[httpx.Response(200, json=running), httpx.Response(200, json=job())])
    result = medkg("watch", JOB_ID)
    assert "waiting: 2 held pages for 12 s  64 in flight" in result.stdout


def test_plain_lines_are_not_repeated_while_nothing_changes(medkg: Medkg, gateway: respx.MockRouter, job: Job) -> None:
    running = httpx.Response(200, json=job("running", completed=1, in_flight=2))
    gateway.get(JOB_PATH).mock(side_effect=[running] * 40 + [httpx.Response(200, json=job())])
    result = medkg("watch", JOB_ID)
    assert len([line for line in result.stdout.splitlines() if " | running | " in line]) == 1


def test_json_gives_an_object_for_every_change_and_the_account_last(
    medkg: Medkg, gateway: respx.MockRouter, job: Job
) -> None:
    looks = [job("running", completed=0), job("running", completed=0), job("running", completed=2), job()]
    gateway.get(JOB_PATH).mock(side_effect=[httpx.Response(200, json=look) for look in looks])
    result = medkg("watch", JOB_ID, "--json")
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(line["state"], line["completed"]) for line in lines] == [
        ("running", 0),
        ("running", 2),
        ("completed", 3),
    ]


def test_a_job_with_failures_ends_with_exit_code_1(medkg: Medkg, gateway: respx.MockRouter, job: Job) -> None:
    gateway.get(JOB_PATH).respond(json=job("completed_with_failures", completed=0, failed=3, documents=3))
    gateway.get(f"{JOB_PATH}/documents").respond(json={"documents": [], "next": None})
    result = medkg("watch", JOB_ID)
    assert result.exit_code == 1
    assert "3 more: medkg dead-letters list --job 3f0c2a91d4e8" not in result.stdout  # nothing was shown to add to
    assert "3 failed" in result.stdout


def test_the_account_stands_though_the_failed_documents_cannot_be_named(
    medkg: Medkg, gateway: respx.MockRouter, job: Job
) -> None:
    gateway.get(JOB_PATH).respond(json=job("completed_with_failures", completed=2, failed=1))
    gateway.get(f"{JOB_PATH}/documents").respond(500, json={"error": {"code": "internal_error", "message": "broke"}})
    result = medkg("watch", JOB_ID, "--json")
    assert result.exit_code == 1
    assert "cannot say which documents failed: broke" in result.stderr
    assert json.loads(result.stdout.splitlines()[-1])["failed"] == 1


def test_jobs_are_listed_with_what_matters(medkg: Medkg, gateway: respx.MockRouter, job: Job) -> None:
    running = job("running", job_id=OTHER_ID, completed=1, in_flight=2)
    gateway.get("/v1/jobs").respond(json={"jobs": [running, job()], "next": None})
    result = medkg("jobs", env={"COLUMNS": "130"})
    assert result.exit_code == 0
    header, first, second = result.stdout.splitlines()
    assert " ".join(header.split()) == "job state source pipeline documents skipped failed took admitted"
    assert first.split()[:6] == ["3f7700000000", "running", "files", "auto", "1.0", "1/3"]
    assert "4.5 s" in second


def test_jobs_fit_a_narrow_terminal(medkg: Medkg, gateway: respx.MockRouter, job: Job) -> None:
    gateway.get("/v1/jobs").respond(json={"jobs": [job()], "next": None})
    lines = medkg("jobs", env={"COLUMNS": "80"}).stdout.splitlines()
    assert len(lines) == 2
    assert "3f0c2a91d4e8" in lines[1]
    assert "…" not in lines[1]


def test_jobs_json_is_what_the_gateway_said_on_one_line(medkg: Medkg, gateway: respx.MockRouter, job: Job) -> None:
    answer = {"jobs": [job()], "next": "cursor"}
    route = gateway.get("/v1/jobs").respond(json=answer)
    result = medkg("jobs", "--json", "--limit", "7")
    assert json.loads(result.stdout) == answer  # fields of a newer gateway included
    assert len(result.stdout.splitlines()) == 1
    assert route.calls.last.request.url.params["limit"] == "7"


def test_no_jobs_says_how_to_make_one(medkg: Medkg, gateway: respx.MockRouter) -> None:
    gateway.get("/v1/jobs").respond(json={"jobs": [], "next": None})
    assert "medkg submit --help" in medkg("jobs").stdout


def test_the_job_of_another_tenant_is_asked_for_in_its_name(medkg: Medkg, gateway: respx.MockRouter, job: Job) -> None:
    route = gateway.get(JOB_PATH).respond(json=job())
    assert medkg("watch", JOB_ID, "--tenant", "oncology").exit_code == 0
    assert {call.request.url.params["tenant_id"] for call in route.calls} == {"oncology"}
