"""What the heads in OpenSearch say of writes: those that none names are invisible."""

from collections.abc import Sequence
from typing import Any, Final

from medkg.haystack.opensearch import layout, queries
from medkg.haystack.opensearch.client import translated
from medkg.haystack.opensearch.indexes import Indexes

_AT_ONCE: Final = 5_000  # ids of one question; OpenSearch takes 65,536 and answers with 10,000


class Heads:
    """See :class:`medkg.haystack.vectors.merging.Liveness`: of one index."""

    def __init__(self, indexes: Indexes, alias: str) -> None:
        self._indexes = indexes
        self._alias = alias

    async def named(self, write_ids: Sequence[str]) -> set[str]:
        """Those that a document names now: every head that was written before this was called is looked at.

        Raises:
            ResourceUnavailableError: OpenSearch does not answer, or not with all shards.
        """
        client = self._indexes.client
        found: set[str] = set()
        with translated("looking which vectors are visible"):
            await client.indices.refresh(index=self._alias)
            for start in range(0, len(write_ids), _AT_ONCE):
                part = list(write_ids[start : start + _AT_ONCE])
                body = {
                    "query": {"bool": {"filter": [{"term": {"kind": layout.HEAD}}, {"terms": {"write_id": part}}]}},
                    "size": 2 * _AT_ONCE,
                    "_source": False,
                    "docvalue_fields": ["write_id"],
                }
                answer = await client.search(index=self._alias, body=body, params=_COMPLETE)
                found |= {hit["fields"]["write_id"][0] for hit in answer["hits"]["hits"]}
        return found

    async def visible_rows(self) -> int:
        body = {
            "query": queries.live_heads(),
            "size": 0,
            "aggs": {"passages": {"sum": {"field": "passages"}}},
        }
        with translated("counting visible passages"):
            answer = await self._indexes.client.search(index=self._alias, body=body, params=_COMPLETE)
        return int(answer["aggregations"]["passages"]["value"])


_COMPLETE: Final[dict[str, Any]] = {"allow_partial_search_results": "false"}
