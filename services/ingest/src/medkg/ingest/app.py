"""The ingest service: what it offers, and how it is started."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.metadata import entry_points

from medkg.contracts.errors import ConfigurationError
from medkg.contracts.implementation import Host, Options, StageImplementation
from medkg.contracts.sources import ENTRY_POINTS, SourceDefinition
from medkg.contracts.stages import StageType
from medkg.ingest.stage import IngestSources
from medkg.runtime.process import serve


def installed_sources() -> dict[str, SourceDefinition]:
    """Every source that an installed package registers, by name.

    Raises:
        ConfigurationError: one cannot be loaded, or two have the same name.
    """
    found: dict[str, SourceDefinition] = {}
    for entry in sorted(entry_points(group=ENTRY_POINTS), key=lambda entry: entry.name):
        try:
            source = entry.load()
        except ImportError as error:
            raise ConfigurationError(f"loading source {entry.name!r} from {entry.value}: {error}") from error
        if not isinstance(source, SourceDefinition) or source.name != entry.name:
            raise ConfigurationError(
                f"loading source {entry.name!r}: {entry.value} is no SourceDefinition of that name"
            )
        if entry.name in found:
            raise ConfigurationError(f"loading source {entry.name!r}: two installed packages register it; remove one")
        found[entry.name] = source
    return found


@asynccontextmanager
async def _open(options: Options, host: Host) -> AsyncIterator[IngestSources]:
    async with AsyncExitStack() as stack:
        yield IngestSources(
            {name: await stack.enter_async_context(source.open()) for name, source in installed_sources().items()}
        )


SOURCES = StageImplementation(
    stage_type=StageType.INGEST,
    name="sources",
    version="1",
    options=Options,
    open=_open,
    memoised=False,  # a source may have changed; its pages are read each time
    is_default=True,
    calls_peers=True,
)


def main() -> None:
    """Entry point of ``medkg-ingest`` and ``python -m medkg.ingest``."""
    serve(StageType.INGEST)
