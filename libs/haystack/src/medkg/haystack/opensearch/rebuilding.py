"""A new index in place of an old one, without a moment in which searches find nothing.

The new index is filled from the old one document by document, until few differ; then the old one is closed to writers
(who are told to come again), the last differences are copied, and the alias goes over in one step.
"""

from collections.abc import AsyncIterator
from typing import Any, Final

from medkg.haystack.opensearch import layout, queries
from medkg.haystack.opensearch.bulk import Action, send
from medkg.haystack.opensearch.client import translated
from medkg.haystack.opensearch.indexes import Indexes
from medkg.haystack.upkeep import Say

_PAGE: Final = 500
_ROUNDS = 10  # of copying while writers go on; then they have to wait for what is left
_FEW = 200  # documents that are copied while writers wait

# no two documents of an index are equal in all of these
_TOTAL_ORDER = [{"doc_id": "asc"}, {"write_id": "asc"}, {"row": {"order": "asc", "missing": "_first"}}, {"kind": "asc"}]

Heads = dict[str, str]  # document -> the write that is visible of it, with its revision


async def copy_index(indexes: Indexes, alias: str, old: str, say: Say) -> str:
    """Makes a new index for the alias from ``old`` and removes that; returns the new one's name.

    Stopped at any moment, the alias still stands for a whole index: the old one, open to writers again after the next
    attempt, or the new one.
    """
    await _close_to_writers(indexes, old, closed=False)  # a former attempt may have died with it closed
    await _remove_unfinished(indexes, alias, old)
    await indexes.ensure_template()
    new = await indexes.create(alias, with_alias=False)
    try:
        facts = await indexes.facts(alias)
        if facts is not None and indexes.shape.knn:
            await indexes.add_vector_field(new, facts.dimension)
        for number in range(_ROUNDS):
            changed = await _differences(indexes, old, new)
            say(f"round {number + 1}: {len(changed)} documents to copy")
            await _copy(indexes, old, new, changed)
            if len(changed) <= _FEW:
                break
        await _close_to_writers(indexes, old, closed=True)
        await _copy(indexes, old, new, await _differences(indexes, old, new))
        await _swap(indexes, alias, old, new)
    except BaseException:
        await _close_to_writers(indexes, old, closed=False)
        with translated("removing an unfinished index"):
            await indexes.client.indices.delete(index=new)
        raise
    indexes.forget(alias)
    say(f"searches now go to {new}")
    return new


async def _remove_unfinished(indexes: Indexes, alias: str, old: str) -> None:
    """What a former attempt that died has left."""
    with translated("removing unfinished indexes"):
        found = await indexes.client.indices.get(index=f"{alias}-*", params={"expand_wildcards": "open"})
        for name in found:
            if name != old and not found[name].get("aliases"):
                await indexes.client.indices.delete(index=name)


async def _differences(indexes: Indexes, old: str, new: str) -> list[str]:
    """Documents of which the new index has another state, or none; and the facts, if it has none."""
    there, copied = await _heads(indexes, old), await _heads(indexes, new)
    return [doc_id for doc_id, state in there.items() if copied.get(doc_id) != state]


async def _heads(indexes: Indexes, name: str) -> Heads:
    with translated("refreshing an index"):
        await indexes.client.indices.refresh(index=name)
    heads: Heads = {}
    wanted = ["doc_id", "write_id", "revision"]
    async for hit in _all(indexes, name, {"terms": {"kind": [layout.HEAD, layout.FACTS]}}, wanted):
        source = hit["_source"]
        doc_id = source.get("doc_id", layout.FACTS_ID)
        heads[f"{hit['_id']}\n{doc_id}"] = f"{source.get('write_id', '')} {source.get('revision', '')}"
    return heads


async def _copy(indexes: Indexes, old: str, new: str, changed: list[str]) -> None:
    """Passages before heads, as writers do it; what the new index had of a document before is removed."""
    for start in range(0, len(changed), _PAGE):
        keys = [key.split("\n", 1) for key in changed[start : start + _PAGE]]
        doc_ids = [doc_id for _, doc_id in keys]
        ids = {"ids": {"values": [head_id for head_id, _ in keys]}}
        heads = [hit async for hit in _all(indexes, old, ids, True)]
        visible = [hit["_source"]["write_id"] for hit in heads if "write_id" in hit["_source"]]
        stale = {"bool": {"filter": [{"terms": {"doc_id": doc_ids}}], "must_not": [{"terms": {"write_id": visible}}]}}
        passages = {"bool": {"filter": [{"term": {"kind": layout.PASSAGE}}, {"terms": {"write_id": visible}}]}}
        actions: list[Action] = []
        async for hit in _all(indexes, old, passages, True):
            actions.append(Action("index", hit["_id"], hit["_routing"], hit["_source"]))
            if len(actions) >= _PAGE:
                await _send(indexes, new, actions)
                actions = []
        await _send(indexes, new, actions)
        await _send(indexes, new, [Action("index", hit["_id"], hit["_routing"], hit["_source"]) for hit in heads])
        old_ones = [hit async for hit in _all(indexes, new, stale, False) if hit["_id"].startswith("p")]
        await _send(indexes, new, [Action("delete", hit["_id"], hit["_routing"]) for hit in old_ones])


async def _send(indexes: Indexes, name: str, actions: list[Action]) -> None:
    results = await send(indexes.client, name, actions, doing="copying documents", require_alias=False)
    for result in results:
        if result.error is not None:
            raise result.error


async def _all(
    indexes: Indexes, name: str, query: queries.Query, source: bool | list[str]
) -> AsyncIterator[dict[str, Any]]:
    """Every document that a query finds, as it is at one moment."""
    with translated("freezing an index"):
        opened = await indexes.client.create_pit(index=name, params={"keep_alive": "5m"})
    pit = {"id": opened["pit_id"], "keep_alive": "5m"}
    body: dict[str, Any] = {
        "query": {"bool": {"filter": [query]}},
        "size": _PAGE,
        "pit": pit,
        "sort": _TOTAL_ORDER,
        "_source": source,
        "track_total_hits": False,
    }
    try:
        while True:
            with translated("reading an index"):
                hits = (await indexes.client.search(body=body))["hits"]["hits"]
            for hit in hits:
                yield hit
            if len(hits) < _PAGE:
                return
            body["search_after"] = hits[-1]["sort"]
    finally:
        with translated("leaving an index"):
            await indexes.client.delete_pit(body={"pit_id": [opened["pit_id"]]})


async def _swap(indexes: Indexes, alias: str, old: str, new: str) -> None:
    actions = [
        {"add": {"index": new, "alias": alias, "is_write_index": True}},
        {"remove_index": {"index": old}},
    ]
    with translated("moving the alias"):
        await indexes.client.indices.update_aliases(body={"actions": actions})


async def _close_to_writers(indexes: Indexes, name: str, *, closed: bool) -> None:
    with translated("closing an index to writers" if closed else "opening an index to writers"):
        await indexes.client.indices.put_settings(index=name, body={"index": {"blocks": {"write": closed}}})
