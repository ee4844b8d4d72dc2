"""Under load a batch is followed by a rest, in which the next one gathers: a large one costs less than two small."""

import asyncio
from collections.abc import Awaitable, Callable

_LOADED_RECORDS = 100  # a batch of fewer leaves nothing to be gathered for
_LONGEST_SECONDS = 0.05  # nobody waits longer for what a batch says


async def rest(
    records: int, worked_seconds: float, sleep: Callable[[float], Awaitable[object]] = asyncio.sleep
) -> None:
    """Rest after a batch of so many records for as long as it took, within bounds; after a small one not at all."""
    if records >= _LOADED_RECORDS:
        await sleep(min(worked_seconds, _LONGEST_SECONDS))
