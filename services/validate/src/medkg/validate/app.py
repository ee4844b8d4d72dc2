"""The validate service: what it offers, and how it is started."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from medkg.contracts.implementation import Host, Options, StageImplementation
from medkg.contracts.stages import StageType
from medkg.contracts.topology import Checks
from medkg.runtime.process import serve
from medkg.validate.stage import CheckDocument


class CheckOptions(Checks, Options):
    """The thresholds: the worker gives those of the stage's ``checks`` together with its ``with:``."""


@asynccontextmanager
async def _open(options: CheckOptions, host: Host) -> AsyncIterator[CheckDocument]:
    yield CheckDocument(options)


CHECKS = StageImplementation(
    stage_type=StageType.VALIDATE,
    name="checks",
    version="1",
    options=CheckOptions,
    open=_open,
    memoised=False,  # measuring again costs less than a look into the blob store
    is_default=True,
    in_python=True,
)


def main() -> None:
    """Entry point of ``medkg-validate`` and ``python -m medkg.validate``."""
    serve(StageType.VALIDATE)
