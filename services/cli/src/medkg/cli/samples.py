"""The samples folder: the data of a job event, and questions that its documents answer."""

from pathlib import Path, PurePosixPath
from typing import Any

import msgspec

from medkg.cli.exits import UsageProblem
from medkg.cli.selection import files_selection


class Question(msgspec.Struct, frozen=True):
    """A question, and the records of which one should be among the first ``within`` passages."""

    question: str
    expected: tuple[str, ...] = ()
    within: int = 3


def read_samples(samples: Path) -> tuple[dict[str, Any], tuple[Question, ...]]:
    """The job event's data with paths that lead into ``samples``, and the questions.

    Raises:
        UsageProblem: there is no such folder, or a file of it cannot be used.
    """
    job_file, questions_file = samples / "job.json", samples / "questions.json"
    if not job_file.is_file():
        hint = "run it in the checkout, or say where the samples are: --samples DIR"
        raise UsageProblem(f"no samples at {samples}: there is no job.json", hint=hint)
    try:
        submission = msgspec.json.decode(job_file.read_bytes(), type=dict[str, Any])
        questions: tuple[Question, ...] = ()
        if questions_file.is_file():
            questions = msgspec.json.decode(questions_file.read_bytes(), type=tuple[Question, ...])
        paths = [str(samples / _below(path)) for path in submission["selection"]["paths"]]
    except (OSError, KeyError, TypeError, msgspec.DecodeError) as error:
        raise UsageProblem(f"reading the samples at {samples}: {type(error).__name__}: {error}") from error
    return submission | {"selection": files_selection(paths, working_dir=samples)}, questions


def _below(path: str) -> PurePosixPath:
    """A path of job.json as seen from the folder it lies in: it is written as seen from the checkout."""
    relative = PurePosixPath(path)
    return PurePosixPath(*relative.parts[1:]) if relative.parts[:1] == ("samples",) else relative
