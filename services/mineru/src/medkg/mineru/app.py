"""The MinerU service: has PDFs read, and tells the ledger."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx

from medkg.contracts import topics
from medkg.contracts.errors import ConfigurationError
from medkg.mineru.api import MineruApi
from medkg.mineru.breaker import Breaker
from medkg.mineru.clock import SystemClock
from medkg.mineru.handler import MineruHandler
from medkg.mineru.metrics import MineruMetrics
from medkg.mineru.parsing import Parsing, Patience
from medkg.mineru.settings import MineruSettings
from medkg.mineru.tasks import TaskNotes
from medkg.runtime.process import serve_services
from medkg.runtime.service import Service, ServiceHost
from medkg.runtime.settings import RuntimeSettings, from_environment
from medkg.runtime.worker import Handler, WindowSettings
from medkg.storage.engine import Engine, open_engine, prepare


@asynccontextmanager
async def open_mineru(host: ServiceHost) -> AsyncIterator[Handler]:
    """The handler of the queue, for the MinerU that the environment names.

    Raises:
        ConfigurationError: it names none.
    """
    settings = from_environment(MineruSettings)
    if settings.url is None:
        raise ConfigurationError("starting the MinerU service: no server is named; set MEDKG_MINERU_URL=http://…")
    engine = open_engine(host.database_url)
    try:
        await prepare(engine, "starting the MinerU service")
        async with httpx.AsyncClient(
            base_url=str(settings.url), headers=_headers(settings), timeout=settings.request_seconds
        ) as client:
            yield _handler(host, settings, client, engine)
    finally:
        await engine.dispose()


def _handler(host: ServiceHost, settings: MineruSettings, client: httpx.AsyncClient, engine: Engine) -> MineruHandler:
    clock, metrics = SystemClock(), MineruMetrics(host.metrics.registry)
    breaker = Breaker(
        clock,
        failures=settings.breaker_failures,
        seconds=settings.breaker_seconds,
        on_change=lambda is_open: metrics.breaker_open.set(int(is_open)),
    )
    patience = Patience(
        poll_seconds=settings.poll_seconds,
        parse_seconds=settings.parse_seconds,
        resubmits=settings.resubmits,
        mode=settings.mode,
        max_answer_bytes=settings.max_answer_bytes,
    )
    api = MineruApi(client, breaker, max_answer_bytes=settings.max_answer_bytes)
    return MineruHandler(
        parsing=Parsing(api, TaskNotes(host.blobs, str(settings.url)), clock, patience),
        blobs=host.blobs,
        engine=engine,
        metrics=metrics,
        worker=host.settings.worker_id,
        fields=form_of(settings),
        max_file_bytes=settings.max_file_bytes,
    )


def form_of(settings: MineruSettings) -> dict[str, str]:
    """The fields of MinerU's form: what is to be made, and how. Unknown ones are ignored by older versions."""
    fields = {
        "lang_list": settings.language,
        "parse_method": settings.parse_method,
        "return_md": "false",
        "return_content_list": "true",
        "return_middle_json": "true",
        "return_images": "false",
    }
    return fields | ({"backend": settings.backend} if settings.backend else {})


def _headers(settings: MineruSettings) -> dict[str, str]:
    token = settings.token.get_secret_value()
    return {"authorization": f"Bearer {token}"} if token else {}


def _window(settings: RuntimeSettings) -> WindowSettings:
    """Few files at once, and not many more taken: whoever else is in the group may have them."""
    files = from_environment(MineruSettings).concurrency
    return WindowSettings(
        lanes=files, high_water=2 * files, low_water=files, drain_seconds=settings.drain_seconds, is_fair=True
    )


SERVICE = Service("mineru", (topics.MINERU_QUEUE,), open_mineru, _window, is_patient=True)


def main() -> None:
    """Entry point of ``medkg-mineru`` and ``python -m medkg.mineru``."""
    serve_services([SERVICE])
