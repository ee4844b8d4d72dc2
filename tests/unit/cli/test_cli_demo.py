"""`medkg demo`: what it takes from the samples, what it shows, and when it says that all is well."""

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import respx
from typer.testing import Result

from medkg.cli import demo as demo_command
from medkg.cli.exits import UsageProblem
from medkg.cli.fleet_process import Fleet
from medkg.cli.samples import read_samples

Medkg = Callable[..., Result]
Job = Callable[..., dict[str, Any]]
JOB_ID = "3f0c2a91d4e85b6677aa0102030405ff"
GATEWAY = "http://gateway.test:8750"
TOPOLOGY = {
    "name": "auto",
    "stages": [
        {"name": "ingest", "type": "IngestStage"},
        {"name": "to_index", "type": "IndexStage"},
        {"name": "to_graph", "type": "KGStage"},
    ],
}
QUESTION = {"question": "what helps?", "expected": ["NCT1", "PMC2"], "within": 2}
CLAIM = {
    "claim_id": "c",
    "subject": {"entity_id": "nct:NCT1", "type": "study", "name": "A trial"},
    "predicate": "studies_condition",
    "object": {"entity_id": "mesh:D1", "type": "condition", "name": "Sciatica"},
    "evidence": [
        {"doc_id": "d1", "title": "A trial", "source_id": "NCT1", "text": "Sciatica [L5]", "mention": "Sciatica"}
    ],
}


@pytest.fixture
def samples(working_dir: Path) -> Path:
    folder = working_dir / "samples"
    (folder / "trials").mkdir(parents=True)
    submission = {"tenant_id": "default", "source": "files", "selection": {"paths": ["samples/trials"]}}
    (folder / "job.json").write_text(json.dumps(submission))
    (folder / "questions.json").write_text(json.dumps([QUESTION]))
    return folder


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """The job events on a fleet that needs no starting."""
    events: list[tuple[str, dict[str, Any]]] = []

    @contextlib.contextmanager
    def fleet(data_dir: Path, files_root: Path, _clock: object) -> Iterator[Fleet]:
        assert data_dir.is_absolute()
        assert files_root.is_absolute()
        yield Fleet(GATEWAY, "broker:1", data_dir / "fleet.log")
        events.append(("stopped", {}))

    def publish(bootstrap: str, submission: bytes) -> str:
        events.append((bootstrap, json.loads(submission)))
        return JOB_ID

    monkeypatch.setattr(demo_command, "running_fleet", fleet)
    monkeypatch.setattr(demo_command, "publish", publish)
    return events


def serve(
    gateway: respx.MockRouter,
    job: dict[str, Any],
    *,
    done: tuple[str, ...] = ("ingest", "to_index", "to_graph"),
    hits: tuple[str, ...] = ("X", "PMC2"),
    claims: tuple[dict[str, Any], ...] = (CLAIM,),
) -> None:
    """A gateway on which the job has ended; each document has run through the stages ``done``."""

    def documents(request: httpx.Request) -> httpx.Response:
        after = request.url.params.get("after")
        listed = {None: ("d1", "p2"), "p2": ("d2", None)}[after]
        document = {"doc_id": listed[0], "source_id": f"S-{listed[0]}", "state": "completed"}
        return httpx.Response(200, json={"documents": [document], "next": listed[1]})

    gateway.get(f"/v1/jobs/{JOB_ID}").respond(json=job)
    gateway.get(f"/v1/jobs/{JOB_ID}/documents").mock(side_effect=documents)
    for doc_id in ("d1", "d2"):
        timeline = [{"stage": name, "state": "completed"} for name in (done if doc_id == "d2" else TOPOLOGY_STAGES)]
        document = {"doc_id": doc_id, "state": "completed", "timeline": timeline}
        gateway.get(f"/v1/jobs/{JOB_ID}/documents/{doc_id}").respond(json=document)
    gateway.get("/v1/pipelines/auto").respond(json=TOPOLOGY)
    found = [
        {"rank": rank, "score": 0.03, "text": "[Rest] helps what helps", "title": "T", "source_id": source_id}
        for rank, source_id in enumerate(hits, 1)
    ]
    gateway.get("/v1/search").respond(json={"hits": found})
    entity = {"entity_id": "nct:NCT1", "type": "study", "name": "A trial", "documents": 2}
    gateway.get("/v1/graph").respond(json={"entities": [entity], "claims": list(claims)})


TOPOLOGY_STAGES = ("ingest", "to_index", "to_graph")


def test_the_demo_publishes_shows_and_stops(
    medkg: Medkg, gateway: respx.MockRouter, job: Job, samples: Path, published: list[Any]
) -> None:
    serve(gateway, job())
    result = medkg("demo", env={"MEDKG_GATEWAY_URL": "http://another-fleet:1"})
    assert result.exit_code == 0
    submission = {"tenant_id": "default", "source": "files", "selection": {"paths": [str(samples / "trials")]}}
    assert published == [("broker:1", submission), ("stopped", {})]
    for shown in (
        "✓ job 3f0c2a91d4e8  completed",
        "? what helps?",
        "[Rest] helps what helps",
        "studies condition",
        "“Sciatica [L5]”",
        "✓ 3 documents in both stores",
        "✓ 1 of 1 question answered by the record that was expected",
    ):
        assert shown in result.stdout
    assert "unchanged" not in result.stdout


def test_unchanged_content_is_said(
    medkg: Medkg, gateway: respx.MockRouter, job: Job, samples: Path, published: list[Any]
) -> None:
    serve(gateway, job(skipped=3, completed=0))
    result = medkg("demo")
    assert result.exit_code == 0
    assert "✓ all content was unchanged since the last time" in result.stdout


def test_the_demo_ends_with_one_object_with_json(
    medkg: Medkg, gateway: respx.MockRouter, job: Job, samples: Path, published: list[Any]
) -> None:
    serve(gateway, job())
    result = medkg("demo", "--json")
    account = json.loads(result.stdout)
    assert account["documents"] == 3
    assert account["questions"] == [{"question": "what helps?", "rank": 2}]
    assert account["not_in_both_stores"] == []
    assert "? what helps?" in result.stderr


@pytest.mark.parametrize("missing", ["to_index", "to_graph"])
def test_a_document_that_missed_a_store_fails_the_demo(
    medkg: Medkg, gateway: respx.MockRouter, job: Job, samples: Path, published: list[Any], missing: str
) -> None:
    serve(gateway, job(), done=tuple(name for name in TOPOLOGY_STAGES if name != missing))
    result = medkg("demo")
    assert result.exit_code == 1
    assert "✗ 1 of 3 documents not in both stores: S-d2" in result.stdout
    assert published[-1] == ("stopped", {})


@pytest.mark.parametrize(
    "trouble",
    [
        {"state": "completed_with_failures", "completed": 2, "failed": 1},
        {"state": "completed", "documents": 0, "completed": 0},
        {"state": "rejected", "documents": 0, "completed": 0, "pipeline": None, "stages": []},
    ],
    ids=["failures", "nothing read", "rejected"],
)
def test_a_job_that_did_not_go_well_fails_the_demo(
    medkg: Medkg, gateway: respx.MockRouter, job: Job, samples: Path, published: list[Any], trouble: dict[str, Any]
) -> None:
    serve(gateway, job(**trouble))
    assert medkg("demo").exit_code == 1


@pytest.mark.parametrize("empty", [{"hits": ("X", "Y", "NCT1")}, {"hits": ()}, {"claims": ()}])
def test_stores_that_answer_nothing_that_was_expected_fail_the_demo(
    medkg: Medkg, gateway: respx.MockRouter, job: Job, samples: Path, published: list[Any], empty: dict[str, Any]
) -> None:
    serve(gateway, job(), **empty)
    assert medkg("demo").exit_code == 1


def test_ctrl_c_stops_the_fleet(
    medkg: Medkg, gateway: respx.MockRouter, job: Job, samples: Path, monkeypatch: pytest.MonkeyPatch, clock: Any
) -> None:
    stopped: list[bool] = []

    @contextlib.contextmanager
    def fleet(data_dir: Path, *_: object) -> Iterator[Fleet]:
        try:
            yield Fleet(GATEWAY, "broker:1", data_dir / "fleet.log")
        finally:
            stopped.append(True)

    def interrupt(_seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(demo_command, "running_fleet", fleet)
    monkeypatch.setattr(demo_command, "publish", lambda _bootstrap, _data: JOB_ID)
    gateway.get(f"/v1/jobs/{JOB_ID}").respond(json=job("running"))
    clock.at_sleep = interrupt
    result = medkg("demo")
    assert result.exit_code == 130
    assert "the job goes on" not in result.stderr  # its fleet is gone
    assert stopped == [True]


def test_without_samples_the_demo_says_how_to_name_them(medkg: Medkg, published: list[Any]) -> None:
    result = medkg("demo")
    assert result.exit_code == 2
    assert "--samples DIR" in result.stderr
    assert published == []


def test_samples_elsewhere_are_read_from_there(samples: Path, tmp_path: Path) -> None:
    elsewhere = samples.rename(tmp_path / "other-name")
    submission, questions = read_samples(elsewhere)
    assert submission["selection"] == {"paths": [str(elsewhere / "trials")]}
    assert questions[0].expected == ("NCT1", "PMC2")


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"selection": {"paths": 5}}', '{"selection": {"paths": ["gone"]}}']
)
def test_samples_at_fault_are_named(samples: Path, content: str) -> None:
    (samples / "job.json").write_text(content)
    with pytest.raises(UsageProblem):
        read_samples(samples)
