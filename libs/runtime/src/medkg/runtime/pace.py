"""A batch is followed by a rest, in which the next one gathers: a large one costs less than two small."""

import asyncio
from collections.abc import Awaitable, Callable

_LOADED_RECORDS = 100
# Nobody waits longer for the next batch to begin. Where documents are computed one after the other their events come
# singly, and would have a transaction each: at 20 documents a second half of the ledger's and the database's work.
_LONGEST_SECONDS, _LONGEST_SECONDS_OF_FEW = 0.05, 0.02


async def rest(
    records: int, worked_seconds: float, sleep: Callable[[float], Awaitable[object]] = asyncio.sleep
) -> None:
    """Rest after a batch of so many records for as long as it took, and after one of few for twice as long."""
    if records >= _LOADED_RECORDS:
        await sleep(min(worked_seconds, _LONGEST_SECONDS))
    else:
        await sleep(min(2 * worked_seconds, _LONGEST_SECONDS_OF_FEW))
