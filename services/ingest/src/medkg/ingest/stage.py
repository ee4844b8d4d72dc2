"""The ingest stage: hands a request to the adapter of its source."""

from collections.abc import Mapping

from medkg.contracts.context import StageContext
from medkg.contracts.document import AdapterRequest, IngestPage
from medkg.contracts.errors import ConfigurationError
from medkg.contracts.sources import SourceAdapter


class IngestSources:
    """Reads pages of the sources it was given."""

    def __init__(self, adapters: Mapping[str, SourceAdapter]) -> None:
        self._adapters = adapters

    async def execute(self, ctx: StageContext, request: AdapterRequest) -> IngestPage:
        """One page.

        Raises:
            ConfigurationError: no such source is installed here.
            ContractError: selection or cursor are not what this source takes.
            SourceError: the source did not give the page; each subclass says whether to try again.
        """
        adapter = self._adapters.get(request.source)
        if adapter is None:
            known = ", ".join(sorted(self._adapters)) or "none"
            raise ConfigurationError(
                f"reading source {request.source!r}: it is not installed here (installed: {known}); install a package "
                "that registers it under the entry-point group medkg.sources"
            )
        return await adapter.read(request)
