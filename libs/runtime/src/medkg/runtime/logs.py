"""Log lines: one JSON object each (or for people), with the job and document they belong to."""

import logging
import sys
from pathlib import Path

import structlog

from medkg.runtime.settings import RuntimeSettings


def configure_logging(settings: RuntimeSettings, *, file: Path | None = None) -> None:
    """Send all of the process' logging to standard error, or to a file, in one form.

    Fields of ``extra=`` (``job_id``, ``doc_id``, ``stage`` …) become fields of the line.
    """
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    is_json = settings.log_format == "json"
    closing: list[structlog.typing.Processor] = (
        [
            structlog.processors.format_exc_info,
            structlog.processors.EventRenamer("message"),
            _worker(settings.worker_id),
        ]
        if is_json
        else []
    )
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer() if is_json else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    handler = logging.FileHandler(file) if file is not None else logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *closing, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level.upper())
    for chatty in ("httpx", "httpcore", "uvicorn.access", "faststream", "opensearch"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def _worker(worker_id: str) -> structlog.typing.Processor:
    def add(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        event["worker"] = worker_id
        return event

    return add
