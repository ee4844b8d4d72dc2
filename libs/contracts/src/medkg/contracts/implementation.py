"""How an implementation of a stage says what it is, so that a worker can find, open and trust it.

Registered under the entry-point group ``medkg.stages`` with the name ``SERVICE.IMPLEMENTATION``::

    [project.entry-points."medkg.stages"]
    "chunk.sections" = "my_package:SECTIONS"
"""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from pydantic import BaseModel, ConfigDict

from medkg.contracts.stages import StageType

ENTRY_POINTS = "medkg.stages"


class Blobs(Protocol):
    """Where artefacts and files lie. Keys are relative paths; a put under an existing key changes nothing."""

    async def get(self, key: str) -> bytes | None:
        """The bytes under ``key``, or None."""
        ...

    async def put(self, key: str, data: bytes) -> None: ...


@runtime_checkable
class FileBlobs(Blobs, Protocol):
    """A blob store that also takes files too large to be held in memory, and notes that change."""

    async def put_file(self, key: str, path: Path) -> bool:
        """Store the file at ``path`` under ``key``, unless something is there; whether it was written."""
        ...

    async def size(self, key: str) -> int | None:
        """How many bytes lie under ``key``; None where there is nothing."""
        ...

    async def replace(self, key: str, data: bytes) -> None:
        """Write ``data`` under ``key`` in the place of what is there."""
        ...


@dataclass(frozen=True, slots=True)
class Host:
    """What the process that runs a stage lends to it."""

    data_dir: Path
    blobs: Blobs
    database_url: str = ""  # postgresql://…; empty where the service was given none


class Options(BaseModel):
    """Settings of a stage in a topology (``with:``). Unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True, slots=True)
class StageImplementation:
    """An implementation of a kind of stage.

    ``name`` is what ``uses:`` says. ``version`` goes into the key of every artefact: raise it when the output changes.
    ``open`` builds the stage and releases it again. ``memoised``: the artefact is stored under its content key, and
    found there instead of being computed again; false where computing is cheaper than a look.
    ``needs_gpu``: without one it is not opened; ``gpu_is_remote``: the GPU is a server's, and ``open`` asks it.
    ``in_python``: ``execute`` is a plain function that computes in Python itself, so that two of them at once in one
    process share one interpreter and are slower than one after the other: one at a time runs.
    ``calls_peers``: the rate limit and the breaker of the policy hold for each peer by itself, and the stage guards its
    calls with :func:`medkg.runtime.resilience.peers.guard`; otherwise they hold for the stage as a whole.
    """

    stage_type: StageType
    name: str
    version: str
    options: type[Options]
    open: Callable[[Any, Host], AbstractAsyncContextManager[Any]]
    memoised: bool = True
    needs_gpu: bool = False
    gpu_is_remote: bool = False
    in_python: bool = False
    calls_peers: bool = False
    is_default: bool = False
