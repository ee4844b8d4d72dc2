"""`medkg submit`: what is sent, what is refused before anything is sent, and how waiting ends."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import respx
from typer.testing import Result

from medkg.cli import submit as submit_command
from medkg.contracts.ids import job_id_of

Medkg = Callable[..., Result]
Job = Callable[..., dict[str, Any]]
JOB_ID = "3f0c2a91d4e85b6677aa0102030405ff"
JOB_PATH = f"/v1/jobs/{JOB_ID}"


@pytest.fixture
def article(working_dir: Path) -> Path:
    path = working_dir / "article.xml"
    path.write_text("<article/>")
    return path


def admit(gateway: respx.MockRouter) -> respx.Route:
    return gateway.post("/v1/jobs").respond(202, json={"job_id": JOB_ID, "state": "admitted"})


def sent(route: respx.Route) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(route.calls.last.request.content)
    return body


def last_line(result: Result) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return found


def test_paths_are_made_absolute_and_the_job_is_named(medkg: Medkg, gateway: respx.MockRouter, article: Path) -> None:
    route = admit(gateway)
    result = medkg("submit", "--source", "files", "./sub/../article.xml", "--pipeline", "auto", "--tenant", "lab")
    assert result.exit_code == 0
    assert sent(route) == {
        "tenant_id": "lab",
        "source": "files",
        "selection": {"paths": [str(article)]},
        "pipeline": "auto",
    }
    assert f"job {JOB_ID} admitted" in result.stdout
    assert f"medkg watch {JOB_ID}" in result.stdout


def test_a_pattern_is_sent_as_a_pattern(medkg: Medkg, gateway: respx.MockRouter, working_dir: Path) -> None:
    (working_dir / "a" / "b").mkdir(parents=True)
    (working_dir / "a" / "b" / "study.json").write_text("{}")
    route = admit(gateway)
    assert medkg("submit", "a/**/*.json").exit_code == 0
    assert sent(route)["selection"] == {"paths": [str(working_dir / "a/**/*.json")]}


def test_every_submission_has_an_idempotency_key_of_its_own(
    medkg: Medkg, gateway: respx.MockRouter, article: Path
) -> None:
    route = admit(gateway)
    medkg("submit", str(article))
    medkg("submit", str(article))
    keys = {call.request.headers["idempotency-key"] for call in route.calls}
    assert len(keys) == 2


def test_a_missing_path_is_named_and_nothing_is_sent(medkg: Medkg, gateway: respx.MockRouter, article: Path) -> None:
    route = admit(gateway)
    result = medkg("submit", str(article), "gone.xml", "none-*.json")
    assert result.exit_code == 2
    assert "gone.xml" in result.stderr
    assert "none-*.json" in result.stderr
    assert "article.xml" not in result.stderr
    assert not route.called


def test_no_check_sends_paths_of_another_machine(medkg: Medkg, gateway: respx.MockRouter) -> None:
    route = admit(gateway)
    assert medkg("submit", "/srv/elsewhere/records", "--no-check").exit_code == 0
    assert sent(route)["selection"] == {"paths": ["/srv/elsewhere/records"]}


def test_more_paths_than_a_job_may_have_is_a_clear_error(medkg: Medkg, gateway: respx.MockRouter) -> None:
    result = medkg("submit", *["x"] * 10_001)
    assert result.exit_code == 2
    assert "10,001 paths are over the limit of 10,000" in result.stderr
    assert "**" in result.stderr  # says what to do instead


def test_a_job_event_over_the_byte_limit_is_refused_before_it_is_sent(medkg: Medkg, gateway: respx.MockRouter) -> None:
    route = admit(gateway)
    result = medkg("submit", "--no-check", *["/" + "x" * 200 + str(number) for number in range(2_000)])
    assert result.exit_code == 2
    assert "the limit is 262,144" in result.stderr
    assert not route.called


@pytest.mark.parametrize("name", ["a\nb", "a\udcffb"])
def test_a_path_that_cannot_be_sent_is_refused(medkg: Medkg, gateway: respx.MockRouter, name: str) -> None:
    result = medkg("submit", "--no-check", name)
    assert result.exit_code == 2
    assert "not UTF-8 or has control characters" in result.stderr


def test_study_numbers_are_read_in_any_spelling(medkg: Medkg, gateway: respx.MockRouter) -> None:
    route = admit(gateway)
    arguments = ("--source", "clinicaltrials", "--ids", "nct01339377, NCT00004980,NCT01339377", "--limit", "5")
    assert medkg("submit", *arguments).exit_code == 0
    assert sent(route)["selection"] == {"ids": ["NCT01339377", "NCT00004980"], "limit": 5}


@pytest.mark.parametrize(
    ("source", "arguments", "selection"),
    [
        (
            "unpaywall",
            ("--ids", "10.5555/a,10.5555/b,c(1) 10.5555/a"),
            {"ids": ["10.5555/a", "10.5555/b,c(1)"]},
        ),
        ("pmc-fulltext", ("--ids", "PMC1, PMC22", "--ids", "PMC3"), {"ids": ["PMC1", "PMC22", "PMC3"]}),
        ("core", ("--ids", "12,34"), {"ids": [12, 34]}),
        ("core", ("--query", "heart", "--limit", "3"), {"query": "heart", "limit": 3}),
    ],
)
def test_records_of_other_sources_are_named_by_identifier_or_query(
    medkg: Medkg, gateway: respx.MockRouter, source: str, arguments: tuple[str, ...], selection: object
) -> None:
    route = admit(gateway)
    result = medkg("submit", "--source", source, *arguments)
    assert result.exit_code == 0, result.stderr
    assert (sent(route)["source"], sent(route)["selection"]) == (source, selection)


def test_a_query_is_sent_as_it_is(medkg: Medkg, gateway: respx.MockRouter) -> None:
    route = admit(gateway)
    assert medkg("submit", "--source", "clinicaltrials", "--query", "AREA[Phase]PHASE3").exit_code == 0
    assert sent(route)["selection"] == {"query": "AREA[Phase]PHASE3"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "which files?"),
        (("--source", "clinicaltrials"), "which studies?"),
        (("--source", "unpaywall"), "which records?"),
        (("--source", "unpaywall", "--ids", "10.5555/a", "a.pdf"), "no paths"),
        (("--source", "unpaywall", "--query", "x"), "cannot be submitted"),
        (("--source", "clinicaltrials", "--ids", "NCT1,NCT01339377"), "not NCT numbers: NCT1"),
        (("--source", "clinicaltrials", "--ids", "NCT01339377", "--query", "x"), "one of them"),
        (("--source", "clinicaltrials", "--query", "x", "article.xml"), "no paths"),
        (("article.xml", "--query", "x"), "need --source clinicaltrials"),
        (("article.xml", "--source", "nowhere"), "unknown source"),
        (("article.xml", "--tenant", "Not A Tenant"), "/tenant_id"),
        (("article.xml", "--pipeline", "UPPER"), "/pipeline"),
        (("article.xml", "--timeout", "5"), "add --wait"),
        (("article.xml", "--kafka", "nonsense"), "--kafka: expected HOST:PORT"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_sent(
    medkg: Medkg, gateway: respx.MockRouter, article: Path, arguments: tuple[str, ...], said: str
) -> None:
    route = admit(gateway)
    result = medkg("submit", *arguments)
    assert result.exit_code == 2
    assert said in result.stderr
    assert not route.called


def test_a_refused_job_shows_every_fault_on_a_line(medkg: Medkg, gateway: respx.MockRouter, article: Path) -> None:
    faults = [
        {"pointer": "/pipeline", "message": "no pipeline 'xy'", "hint": "did you mean 'auto'?"},
        {"pointer": "/selection/paths/0", "message": "outside of \x1b[31m[the] roots"},
    ]
    error = {"code": "job_rejected", "message": "the job is not accepted", "faults": faults}
    gateway.post("/v1/jobs").respond(422, json={"error": error})
    result = medkg("submit", str(article), "--pipeline", "xy")
    assert result.exit_code == 1
    assert "error: the job is not accepted  [job_rejected]" in result.stderr
    assert "  /pipeline  no pipeline 'xy'  (did you mean 'auto'?)\n" in result.stderr
    assert "  /selection/paths/0  outside of [the] roots\n" in result.stderr


def test_a_refused_job_is_json_on_standard_error_with_json(
    medkg: Medkg, gateway: respx.MockRouter, article: Path
) -> None:
    error = {"code": "job_rejected", "message": "no", "faults": [{"pointer": "", "message": "bad"}]}
    gateway.post("/v1/jobs").respond(422, json={"error": error})
    result = medkg("submit", str(article), "--json")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert json.loads(result.stderr) == {"error": error}


def test_waiting_ends_with_the_counts_of_the_job(
    medkg: Medkg, gateway: respx.MockRouter, article: Path, job: Job
) -> None:
    admit(gateway)
    running = job("running", completed=1, in_flight=2)
    gateway.get(JOB_PATH).mock(side_effect=[httpx.Response(200, json=running), httpx.Response(200, json=job())])
    result = medkg("submit", str(article), "--wait")
    assert result.exit_code == 0
    assert "running | 1 of 3 documents" in result.stdout
    assert "completed in 4.5 s" in result.stdout
    assert "3 documents   3 completed   0 skipped   0 failed   0 rejected" in result.stdout
    assert "12 ms" in result.stdout  # the mean of the kg stage


def test_waiting_with_json_ends_with_one_object_on_standard_output(
    medkg: Medkg, gateway: respx.MockRouter, article: Path, job: Job
) -> None:
    admit(gateway)
    gateway.get(JOB_PATH).respond(json=job(skipped=1, completed=2))
    result = medkg("submit", str(article), "--wait", "--json")
    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) == 1
    account = last_line(result)
    counts = {name: account[name] for name in ("documents", "completed", "skipped", "failed", "rejected")}
    assert counts == {"documents": 3, "completed": 2, "skipped": 1, "failed": 0, "rejected": 0}
    assert (account["job_id"], account["state"]) == (JOB_ID, "completed")


def test_a_new_job_that_the_ledger_does_not_know_yet_is_waited_for(
    medkg: Medkg, gateway: respx.MockRouter, article: Path, job: Job
) -> None:
    gateway.post("/v1/jobs").respond(202, json={"job_id": JOB_ID, "state": "submitted"})
    unknown = httpx.Response(404, json={"error": {"code": "not_found", "message": "no such job"}})
    gateway.get(JOB_PATH).mock(side_effect=[unknown, unknown, httpx.Response(200, json=job())])
    result = medkg("submit", str(article), "--wait")
    assert result.exit_code == 0
    assert "waiting for the gate-router to admit the job" in result.stdout


def test_all_skipped_says_that_the_content_was_unchanged(
    medkg: Medkg, gateway: respx.MockRouter, article: Path, job: Job
) -> None:
    admit(gateway)
    gateway.get(JOB_PATH).respond(json=job(skipped=3, completed=0))
    assert "all content was unchanged" in medkg("submit", str(article), "--wait").stdout


@pytest.mark.parametrize(("flags", "code"), [((), 1), (("--allow-failures",), 0)])
def test_failures_decide_the_exit_code_unless_allowed(
    medkg: Medkg, gateway: respx.MockRouter, article: Path, job: Job, flags: tuple[str, ...], code: int
) -> None:
    admit(gateway)
    gateway.get(JOB_PATH).respond(json=job("completed_with_failures", completed=2, rejected=1))
    failure = {"stage": "parse", "code": "payload_malformed", "message": "parsing [x]: not XML"}
    document = {"doc_id": "d1", "source_id": "PMC1", "state": "rejected", "failure": failure}
    gateway.get(f"{JOB_PATH}/documents").respond(json={"documents": [document], "next": None})
    result = medkg("submit", str(article), "--wait", *flags)
    assert result.exit_code == code
    assert "PMC1  rejected at parse: payload_malformed" in result.stdout
    assert "parsing [x]: not XML" in result.stdout


def test_a_job_that_the_router_rejects_shows_its_faults_and_cannot_be_allowed(
    medkg: Medkg, gateway: respx.MockRouter, article: Path, job: Job
) -> None:
    admit(gateway)
    faults = [{"pointer": "/pipeline", "message": "gone", "hint": ""}]
    gateway.get(JOB_PATH).respond(
        json=job("rejected", pipeline=None, stages=[], documents=0, completed=0, faults=faults)
    )
    result = medkg("submit", str(article), "--wait", "--allow-failures")
    assert result.exit_code == 1
    assert "/pipeline  gone" in result.stdout


def test_a_timeout_says_how_to_go_on_and_still_prints_the_account(
    medkg: Medkg, gateway: respx.MockRouter, article: Path, job: Job
) -> None:
    admit(gateway)
    gateway.get(JOB_PATH).respond(json=job("running", completed=1, in_flight=2))
    result = medkg("submit", str(article), "--wait", "--timeout", "3", "--json")
    assert result.exit_code == 5
    assert f"medkg watch {JOB_ID}" in result.stderr
    assert last_line(result)["state"] == "running"


def test_ctrl_c_while_waiting_says_how_to_go_on(
    medkg: Medkg, gateway: respx.MockRouter, article: Path, job: Job, clock: Any
) -> None:
    def interrupt(_seconds: float) -> None:
        raise KeyboardInterrupt

    admit(gateway)
    gateway.get(JOB_PATH).respond(json=job("running", completed=1, in_flight=2))
    clock.at_sleep = interrupt
    result = medkg("submit", str(article), "--wait", "--json")
    assert result.exit_code == 130
    assert f"the job goes on: medkg watch {JOB_ID}" in result.stderr
    assert last_line(result)["completed"] == 1


def test_a_gateway_that_restarts_while_one_waits_is_forgiven(
    medkg: Medkg, gateway: respx.MockRouter, article: Path, job: Job
) -> None:
    admit(gateway)
    running, ended = httpx.Response(200, json=job("running")), httpx.Response(200, json=job())
    away = httpx.ConnectError("refused")
    gateway.get(JOB_PATH).mock(side_effect=[running, away, away, httpx.Response(503, text="starting"), ended])
    assert medkg("submit", str(article), "--wait").exit_code == 0


def test_patience_with_a_gateway_begins_anew_each_time_it_answers(
    medkg: Medkg, gateway: respx.MockRouter, article: Path, job: Job, clock: Any
) -> None:
    def answer(_request: httpx.Request) -> httpx.Response:
        if clock.seconds > 100:
            return httpx.Response(200, json=job())
        if clock.seconds % 25 > 5:
            raise httpx.ConnectError("refused")
        return httpx.Response(200, json=job("running"))

    admit(gateway)
    gateway.get(JOB_PATH).mock(side_effect=answer)
    assert medkg("submit", str(article), "--wait").exit_code == 0


def test_a_gateway_that_stays_away_ends_the_wait(
    medkg: Medkg, gateway: respx.MockRouter, article: Path, job: Job
) -> None:
    admit(gateway)
    answers = iter([httpx.Response(200, json=job("running"))])

    def answer(_request: httpx.Request) -> httpx.Response:
        response = next(answers, None)
        if response is None:
            raise httpx.ConnectError("refused")
        return response

    gateway.get(JOB_PATH).mock(side_effect=answer)
    result = medkg("submit", str(article), "--wait")
    assert result.exit_code == 3
    assert "the fleet is not up" in result.stderr


def test_an_answer_that_is_lost_is_asked_for_again_with_the_same_key(
    medkg: Medkg, gateway: respx.MockRouter, article: Path
) -> None:
    admitted = httpx.Response(202, json={"job_id": JOB_ID, "state": "admitted"})
    route = gateway.post("/v1/jobs").mock(side_effect=[httpx.ReadTimeout("slow"), admitted])
    assert medkg("submit", str(article)).exit_code == 0
    first, second = (call.request.headers["idempotency-key"] for call in route.calls)
    assert first == second


def test_a_submission_whose_answer_never_came_names_the_job_it_may_be(
    medkg: Medkg, gateway: respx.MockRouter, article: Path
) -> None:
    route = gateway.post("/v1/jobs").mock(side_effect=httpx.ReadTimeout("slow"))
    result = medkg("submit", str(article))
    assert result.exit_code == 3
    key = route.calls.last.request.headers["idempotency-key"]
    assert f"medkg watch {job_id_of('medkg-gateway', f'default/{key}')}" in result.stderr


def test_kafka_publishes_the_event_and_leaves_the_gateway_alone(
    medkg: Medkg, gateway: respx.MockRouter, article: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published: list[tuple[str, dict[str, Any]]] = []

    def publish(bootstrap: str, submission: bytes) -> str:
        published.append((bootstrap, json.loads(submission)))
        return JOB_ID

    monkeypatch.setattr(submit_command, "publish", publish)
    result = medkg("submit", str(article), "--kafka", "broker-1:9092,broker-2:9092", "--json")
    assert result.exit_code == 0
    assert last_line(result) == {"job_id": JOB_ID, "state": "submitted"}
    assert published[0][0] == "broker-1:9092,broker-2:9092"
    assert published[0][1]["selection"] == {"paths": [str(article)]}
