"""The files of a topologies folder: which there are, whether they changed, what is in them."""

import re
import stat
from pathlib import Path

from medkg.contracts.errors import PipelineConfigError, SourceFault
from medkg.contracts.topology_yaml import MAX_CHARACTERS

POLICIES_FILE = "resilience.yaml"
MAX_FILES = 1_000
_FILE_NAME = re.compile(r"[a-z-]{1,63}\.yaml")
_VERSION_FOLDER = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")

Signature = tuple[int, int, int, int]  # changes whenever a file does: mtime and ctime in ns, size, inode


def signature_of(path: Path) -> Signature | None:
    """The signature of a regular file, or None. Links are followed: a mounted ConfigMap consists of links."""
    try:
        found = path.stat()
    except OSError:
        return None
    is_file = stat.S_ISREG(found.st_mode)
    return (found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino) if is_file else None


def list_files(folder: Path) -> dict[str, Signature]:
    """The YAML files of a folder by name, in order. Files whose name no topology can have are left out.

    Raises:
        OSError: the folder cannot be read.
    """
    names = sorted(path.name for path in folder.iterdir() if _FILE_NAME.fullmatch(path.name))
    found = {name: signature_of(folder / name) for name in names[:MAX_FILES]}
    return {name: signature for name, signature in found.items() if signature is not None}


def older_versions(folder: Path, name: str) -> list[Path]:
    """The files ``versions/YYYY-MM-DD/NAME.yaml``, newest first."""
    try:
        dated = [path for path in (folder / "versions").iterdir() if _VERSION_FOLDER.fullmatch(path.name)]
    except OSError:
        return []
    files = (path / f"{name}.yaml" for path in sorted(dated, reverse=True)[:MAX_FILES])
    return [path for path in files if signature_of(path) is not None]


def read_text(path: Path, shown: str) -> str:
    """The text of a file; of one that is too large, enough for its reader to refuse it.

    Raises:
        PipelineConfigError: it cannot be read, or is not UTF-8.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_CHARACTERS * 4 + 1)
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        before = data[: error.start]
        line, column = before.count(b"\n") + 1, error.start - before.rfind(b"\n")
        raise _unreadable(SourceFault(shown, line, column, "not UTF-8")) from error
    except OSError as error:
        raise _unreadable(SourceFault(shown, 1, 1, f"cannot be read: {error.strerror or error}")) from error


def _unreadable(fault: SourceFault) -> PipelineConfigError:
    return PipelineConfigError(str(fault), faults=(fault,))
