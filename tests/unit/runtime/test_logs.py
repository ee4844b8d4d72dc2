"""Log lines: one JSON object each, with what they are about."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from medkg.runtime.logs import configure_logging
from medkg.runtime.settings import RuntimeSettings


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """The root logger as it was, whatever the test made of it."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    for handler in root.handlers:
        if handler not in handlers:
            handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def settings(**fields: Any) -> RuntimeSettings:
    return RuntimeSettings(worker_id="worker-1", **fields)


def test_a_line_is_one_json_object_with_its_job_document_and_worker(tmp_path: Path) -> None:
    path = tmp_path / "log"
    configure_logging(settings(), file=path)
    logging.getLogger("medkg.test").warning("refused: %s", "bad\nline", extra={"job_id": "j", "doc_id": "d"})
    (line,) = lines(path)
    assert line["message"] == "refused: bad\nline"
    assert (line["level"], line["logger"], line["worker"]) == ("warning", "medkg.test", "worker-1")
    assert (line["job_id"], line["doc_id"]) == ("j", "d")
    assert line["timestamp"].endswith("Z")


def test_an_exception_is_part_of_its_line(tmp_path: Path) -> None:
    path = tmp_path / "log"
    configure_logging(settings(), file=path)
    try:
        raise ValueError("inside")
    except ValueError:
        logging.getLogger("medkg.test").exception("it failed")
    (line,) = lines(path)
    assert "ValueError: inside" in line["exception"]


def test_what_structlog_says_comes_in_the_same_form(tmp_path: Path) -> None:
    path = tmp_path / "log"
    configure_logging(settings(), file=path)
    with structlog.contextvars.bound_contextvars(job_id="j"):
        logging.getLogger("medkg.test").info("hello")
    assert lines(path)[0]["job_id"] == "j"


def test_the_level_is_kept_and_chatty_libraries_are_quieter(tmp_path: Path) -> None:
    path = tmp_path / "log"
    configure_logging(settings(log_level="info"), file=path)
    logging.getLogger("medkg.test").debug("unheard")
    logging.getLogger("httpx").info("unheard")
    logging.getLogger("httpx").warning("heard")
    assert [line["message"] for line in lines(path)] == ["heard"]


def test_people_get_lines_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(settings(log_format="console"))
    logging.getLogger("medkg.test").warning("careful", extra={"stage": "chunk"})
    said = capsys.readouterr().err
    assert "careful" in said
    assert "stage" in said
    assert not said.lstrip().startswith("{")
