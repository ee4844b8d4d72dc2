"""What a job is to read, from the command line: paths, NCT numbers or a query, as the selection of a submission."""

import os
import re
from glob import has_magic, iglob
from pathlib import Path
from typing import Any

from medkg.cli.exits import UsageProblem
from medkg.cli.terminal import clean
from medkg.contracts.jobs import MAX_JOB_EVENT_BYTES, check_submission
from medkg.contracts.messages import encode

MAX_PATHS = 10_000
_NCT = re.compile(r"NCT\d{8}", re.ASCII)
_BETWEEN_IDS = re.compile(r"\s+|,\s*(?=10\.|PMC|[0-9]+(?:,|\s|$))")  # a DOI may hold a comma itself
_NAMED = 5  # missing paths named in the message
_BEYOND = "name the folder, or quote a pattern so that the shell leaves it alone: 'DIR/**/*.json'"


def files_selection(paths: list[str], *, working_dir: Path, check: bool = True) -> dict[str, Any]:
    """Absolute paths, in the order given. Glob patterns stay patterns: the ingest service expands them.

    Raises:
        UsageProblem: no path, too many, or (with ``check``) one that is not there or matches nothing.
    """
    if not paths:
        raise UsageProblem("which files? `medkg submit --source files PATH…` needs at least one path")
    if len(paths) > MAX_PATHS:
        raise UsageProblem(f"{len(paths):,} paths are over the limit of {MAX_PATHS:,} for one job", hint=_BEYOND)
    absolute = [os.path.abspath(working_dir / Path(path).expanduser()) for path in paths]  # noqa: PTH100  `..` goes, links stay
    unsendable = [path for path in absolute if not _is_text(path)]
    if unsendable:
        raise UsageProblem(f"{_names(unsendable)}: the name is not UTF-8 or has control characters", hint="rename it")
    missing = [path for path in absolute if check and not _exists(path)]
    if missing:
        hint = "if it is on the machine of the fleet and not on this one: --no-check"
        raise UsageProblem(f"no such file or folder, or no match: {_names(missing)}", hint=hint)
    return {"paths": absolute}


def clinicaltrials_selection(ids: list[str], query: str, limit: int | None) -> dict[str, Any]:
    """Studies by number (comma-separated, in any case, each once) or by query.

    Raises:
        UsageProblem: neither or both are given.
    """
    numbers = list(dict.fromkeys(part.upper() for text in ids for part in text.replace(",", " ").split()))
    wrong = [number for number in numbers if not _NCT.fullmatch(number)]
    if wrong:
        raise UsageProblem(f"not NCT numbers: {_names(wrong)}", hint="NCT and eight digits, separated by commas")
    if bool(numbers) == bool(query):
        raise UsageProblem(
            "which studies? `--source clinicaltrials` needs --ids NCT…,NCT… or --query TEXT, one of them"
        )
    selection: dict[str, Any] = {"ids": numbers} if numbers else {"query": query}
    return selection if limit is None else selection | {"limit": limit}


def record_selection(ids: list[str], query: str, limit: int | None) -> dict[str, Any]:
    """Records of any other source: by identifier (comma-separated, each once), or by query. The door checks the rest.

    Raises:
        UsageProblem: neither is given.
    """
    given = list(dict.fromkeys(part for text in ids for part in _BETWEEN_IDS.split(text.strip()) if part))
    if not given and not query:
        raise UsageProblem("which records? give --ids or --query")
    selection: dict[str, Any] = {}
    if given:
        selection["ids"] = [int(part) if part.isdecimal() and part.isascii() else part for part in given]
    if query:
        selection["query"] = query
    return selection if limit is None else selection | {"limit": limit}


def submission_of(**fields: Any) -> bytes:
    """The data of a job event; fields that are None are left out.

    Raises:
        UsageProblem: the gateway would refuse it; every fault is named.
    """
    data = encode({name: value for name, value in fields.items() if value is not None})
    if len(data) > MAX_JOB_EVENT_BYTES:
        raise UsageProblem(
            f"the job event has {len(data):,} bytes, the limit is {MAX_JOB_EVENT_BYTES:,}: too many paths or numbers",
            hint=_BEYOND,
        )
    submission, faults = check_submission(data)
    if submission is None:
        raise UsageProblem("this job cannot be submitted", faults=faults)
    return data


def _exists(path: str) -> bool:
    if os.path.lexists(path):
        return True
    matches = iglob(path, recursive=True)  # noqa: PTH207  the first match of an absolute pattern, `**` included
    return has_magic(path) and next(matches, None) is not None


def _is_text(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return path.isprintable() or not any(ord(character) < 0x20 for character in path)


def _names(paths: list[str]) -> str:
    shown = ", ".join(clean(path.encode(errors="replace").decode()) for path in paths[:_NAMED])
    return shown if len(paths) <= _NAMED else f"{shown} and {len(paths) - _NAMED:,} more"
