"""Points in time of an index, and searches in them."""

import asyncio
import logging
from typing import Any, Final, NamedTuple

from opensearchpy import AsyncOpenSearch
from opensearchpy.exceptions import NotFoundError, OpenSearchException, TransportError

from medkg.haystack.opensearch import queries
from medkg.haystack.opensearch.client import translated
from medkg.haystack.opensearch.indexes import Indexes

logger = logging.getLogger(__name__)

_KEEP_ALIVE: Final = "1m"
_LEAVE_SECONDS: Final = 0.2  # moments that are left within it are ended with one request


class Row(NamedTuple):
    """Something that was found, and its values of the fields that were asked for."""

    score: float
    values: list[Any]


class Moment:
    """A point in time, and the searches in it."""

    def __init__(self, client: AsyncOpenSearch, pit_id: str) -> None:
        self._client = client
        self.pit_id = pit_id
        self._pit = {"id": pit_id, "keep_alive": _KEEP_ALIVE}

    async def search(self, query: queries.Query, size: int, **more: Any) -> list[dict[str, Any]]:
        body = {"query": query, "size": size, "pit": self._pit, "track_total_hits": False, **more}
        with translated("searching"):
            answer = await self._client.search(body=body)
        found: list[dict[str, Any]] = answer["hits"]["hits"]
        return found

    async def columns(self, query: queries.Query, size: int, *fields: str) -> list["Row"]:
        """Of what a search finds these fields alone, from the columns they are kept in.

        Without the stored fields, ``_id`` among them: to unpack those of 200 passages takes longer than to find them.
        """
        found = await self.search(query, size, stored_fields="_none_", docvalue_fields=list(fields))
        return [Row(hit["_score"] or 0.0, [hit["fields"][field][0] for field in fields]) for hit in found]

    async def aggregate(self, aggregations: dict[str, queries.Query]) -> dict[str, Any]:
        body = {"size": 0, "pit": self._pit, "track_total_hits": False, "aggs": aggregations}
        with translated("counting"):
            answer = await self._client.search(body=body)
        found: dict[str, Any] = answer["aggregations"]
        return found


class Moments:
    """Takes points in time, and ends them. Used on one event loop."""

    def __init__(self, indexes: Indexes) -> None:
        self._indexes = indexes
        self._left: list[str] = []
        self._leaving: asyncio.Task[None] | None = None

    async def take(self, alias: str) -> Moment | None:
        """The state of an index now; None where there is none.

        Raises:
            MedkgError: OpenSearch does not answer, or refuses.
        """
        client = self._indexes.client
        for is_last in (False, True):
            with translated("opening the search index"):
                try:
                    opened = await client.create_pit(index=alias, params={"keep_alive": _KEEP_ALIVE})
                    return Moment(client, str(opened["pit_id"]))
                except NotFoundError:
                    self._indexes.forget(alias)
                    return None
                except TransportError as error:
                    if is_last or error.status_code != 503:
                        raise
            await self._indexes.wait(alias, seconds=2)
        return None

    def leave(self, moment: Moment) -> None:
        """Nobody searches in it any more. It is ended a little later."""
        self._left.append(moment.pit_id)
        if self._leaving is None or self._leaving.done():
            self._leaving = asyncio.create_task(self._end())

    async def aclose(self) -> None:
        """Ends what was left."""
        if self._leaving is not None:
            await self._leaving

    async def _end(self) -> None:
        while self._left:
            await asyncio.sleep(_LEAVE_SECONDS)
            left, self._left = self._left, []
            try:
                await self._indexes.client.delete_pit(body={"pit_id": left})
            except OpenSearchException as error:  # they end by themselves after their keep-alive
                logger.debug("ending %d points in time: %s", len(left), type(error).__name__)
