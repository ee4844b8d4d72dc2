"""A process of medkg: its arguments, its settings, its loop, and the code it ends with."""

import argparse
import asyncio
import gc
import logging
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import NoReturn

from medkg.contracts.errors import GpuNotAvailable, MedkgError
from medkg.contracts.stages import StageType
from medkg.runtime.exits import Exit
from medkg.runtime.logs import configure_logging
from medkg.runtime.memory import limit_arenas
from medkg.runtime.service import HandleBatch, Service, ServiceHost, batch_service, stage_service
from medkg.runtime.serving import run_until_stopped
from medkg.runtime.settings import KafkaSettings, RuntimeSettings, from_environment

log = logging.getLogger(__name__)


def serve(stage_type: StageType) -> None:
    """Run the service of one kind of stage as this process, with settings from the environment, until told to stop."""
    serve_services([stage_service(stage_type)])


def serve_batches(
    name: str,
    reads: Sequence[str],
    open_handler: Callable[[ServiceHost], AbstractAsyncContextManager[HandleBatch]],
) -> None:
    """Run a service that handles records in bulk as this process."""
    serve_services([batch_service(name, reads, open_handler)])


def serve_services(services: Sequence[Service]) -> NoReturn:
    """Run services as this process, until told to stop. What every ``medkg-…`` command does."""
    run_process(lambda settings, kafka: run_until_stopped(services, settings, kafka))


def run_process(main: Callable[[RuntimeSettings, KafkaSettings], Awaitable[int]]) -> NoReturn:
    """Read the environment, log as it says, run ``main`` and exit with its code, see :class:`Exit`."""
    _read_arguments()
    limit_arenas()
    try:
        settings, kafka = from_environment(RuntimeSettings), from_environment(KafkaSettings)
    except MedkgError as error:  # how to log is not known either
        sys.stderr.write(f"medkg: {error.message}\n")
        raise SystemExit(Exit.NOT_STARTED) from error
    configure_logging(settings)
    try:
        code = run(main(settings, kafka))
    except MedkgError as error:
        log.critical(error.message, extra={"code": error.code})
        code = Exit.NO_GPU if isinstance(error, GpuNotAvailable) else Exit.NOT_STARTED
    raise SystemExit(code)


def _read_arguments() -> None:
    """A service takes none; ``--help`` says where its settings come from."""
    fields = RuntimeSettings.model_fields
    lines = [f"  {'MEDKG_' + name.upper():<24} {field.description}" for name, field in fields.items()]
    variables = "\n".join([f"  {'MEDKG_KAFKA_BOOTSTRAP':<24} HOST:PORT of Kafka.", *lines])
    argparse.ArgumentParser(
        description="A medkg service: reads its topic until SIGTERM, then drains. Settings come from the environment.",
        epilog=f"environment (all of it: docs/reference/settings.md):\n{variables}"
        "\n\nexample:\n  MEDKG_KAFKA_BOOTSTRAP=127.0.0.1:9092 medkg-chunk",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).parse_args()


def run(main: Awaitable[int]) -> int:
    """Run the main coroutine of a process, on uvloop where there is one."""

    # What is imported stays: the collector need not look at it again, nor run for every few hundred messages.
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)

    async def whole() -> int:
        return await main

    try:
        import uvloop
    except ImportError:  # no wheel for this platform
        return asyncio.run(whole())
    return uvloop.run(whole())
