"""Where the stores of a fleet are: named by flags and environment, or those of a fleet that runs here (`medkg up`)."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from medkg.cli.exits import UsageProblem
from medkg.cli.terminal import clean
from medkg.local.folder import is_claimed, read_note

DATABASE_VARIABLE = "MEDKG_DATABASE_URL"
BROKER_VARIABLE = "MEDKG_KAFKA_BOOTSTRAP"


@dataclass(frozen=True, slots=True)
class Stores:
    """Where the stores of one fleet are. Empty: as the environment says.

    ``folder``: the data folder of the fleet that was found there; None where a database was named.
    """

    database_url: str
    broker: str = ""
    blobs_url: str = ""
    is_in_process: bool = False
    folder: Path | None = None


def find_stores(database: str, broker: str, blobs: str, data: Path, environment: Mapping[str, str]) -> Stores:
    """Those that are meant: a database that is named, by flag or environment, or the fleet that runs on ``data``.

    Never a mixture: beside a named database the fleet that happens to run here is not looked at; and of a fleet that
    was found here, the broker is its own, whatever the environment says of another.

    Raises:
        UsageProblem: no database is named, and no fleet with one of its own runs there.
    """
    if named := database or environment.get(DATABASE_VARIABLE, ""):
        return Stores(named, broker, blobs)
    hint = (
        f"--database postgresql://…, or {DATABASE_VARIABLE}; or --data DIR, the folder of a fleet that `medkg up` runs"
    )
    if not is_claimed(data):
        raise UsageProblem("which database?", hint=f"{hint} (none runs on {clean(data)})")
    note = read_note(data)
    if not note:
        raise UsageProblem(f"the fleet on {clean(data)} is only starting, or stopping", hint="try again in a moment")
    url = str(note.get("database_url") or "")
    if not url:
        raise UsageProblem(f"the fleet on {clean(data)} works on a database that it was given", hint=hint)
    return Stores(
        url,
        broker or str(note.get("broker") or ""),
        blobs or str(note.get("blobs_url") or ""),
        is_in_process=not broker and note.get("is_in_process") is True,
        folder=data,
    )
