"""What an error of SQLite means: whether the file is not to be had just now, or what was asked can never be done."""

import sqlite3
from typing import Final

from medkg.contracts.errors import MedkgError, ResourceUnavailableError, StageCrashedError

# https://www.sqlite.org/rescode.html: another process has it, or the disk or the memory is at fault
_PASSING: Final = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_INTERRUPT,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PROTOCOL,
    }
)


def sqlite_failure(doing: str, error: sqlite3.Error) -> MedkgError:
    """The error to raise for one of SQLite; ``doing`` begins its message.

    A ResourceUnavailableError where waiting can help. Anything else (a constraint that does not hold, a damaged file)
    comes again however often it is tried, so it is a StageCrashedError, of the documents that were written.
    """
    code = getattr(error, "sqlite_errorcode", None)
    is_passing = isinstance(error, sqlite3.OperationalError) if code is None else code & 0xFF in _PASSING
    if is_passing:
        return ResourceUnavailableError(f"{doing}: {error}")
    return StageCrashedError(
        f"{doing}: {type(error).__name__}: {error}; where other documents fail alike, the index is damaged: look at it "
        "with `medkg index verify`"
    )
