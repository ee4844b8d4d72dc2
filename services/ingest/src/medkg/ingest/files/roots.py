"""Which files may be read, and what they are called."""

import os
from collections.abc import Sequence
from pathlib import Path

from medkg.contracts.errors import ConfigurationError, SourceForbiddenError
from medkg.ingest.settings import ROOTS_VARIABLE


class Roots:
    """The folders that jobs may read. Every decision is made on the path behind all symbolic links."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = tuple(dict.fromkeys(Path(os.path.realpath(folder)) for folder in folders))
        names = [folder.name for folder in self._folders]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ConfigurationError(
                f"reading {ROOTS_VARIABLE}: more than one folder is called {twice[0]!r}; the name goes into the "
                "identity of documents, so give each folder a name of its own"
            )

    def require_any(self) -> None:
        """Raises SourceForbiddenError where no folder is configured at all."""
        if not self._folders:
            raise SourceForbiddenError(
                f"reading files: no folder is open to jobs; set {ROOTS_VARIABLE} (folders separated by {os.pathsep!r}) "
                "for the ingest service"
            )

    def find(self, path: Path) -> Path:
        """The real path of what a job names: an absolute path, or one relative to a root (the first that has it).

        Raises:
            SourceForbiddenError: it lies outside of every root.
            OSError: nothing is there, or it cannot be reached.
        """
        candidates = [path] if path.is_absolute() else [folder / path for folder in self._folders]
        chosen = next((c for c in candidates if os.path.lexists(c)), candidates[0])
        # First where it would lie, then whether it is there: outside of the roots nobody learns what exists.
        if self._root_of(Path(os.path.realpath(chosen))) is None:
            raise SourceForbiddenError(
                f"reading {path}: outside of the folders that are open to jobs; move it there, or add its folder to "
                f"{ROOTS_VARIABLE} of the ingest service"
            )
        return Path(os.path.realpath(chosen, strict=True))

    def name_of(self, real: Path) -> str:
        """What a file is called in identities: ``ROOT/path/below``, the same on every machine."""
        root = self._root_of(real)
        return printable((Path(root.name) / real.relative_to(root)).as_posix() if root is not None else str(real))

    def _root_of(self, real: Path) -> Path | None:
        within = [folder for folder in self._folders if real.is_relative_to(folder)]
        return max(within, key=lambda folder: len(folder.parts), default=None)


def printable(name: str) -> str:
    """A file name as text: bytes that are not UTF-8 are written as ``\\xNN``."""
    return os.fsencode(name).decode(errors="backslashreplace")
