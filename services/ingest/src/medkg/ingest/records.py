"""Reading records by their identifiers from an API that gives one at a time, a page of them at once."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated

import msgspec

from medkg.contracts.document import AdapterRequest, IngestPage, RawPayload, RefusedRecord
from medkg.contracts.errors import ContractError, MedkgError
from medkg.ingest.cursor import Cursor, read_cursor, selection_digest, write_cursor

MAX_IDS = 20  # of one page: at a few requests a second they fit into the time of a stage
_AT_ONCE = 4


class IdCursor(Cursor, kw_only=True):
    """How many identifiers lie behind the page."""

    done: Annotated[int, msgspec.Meta(ge=0)]


async def read_by_ids(
    request: AdapterRequest,
    ids: Sequence[str],
    look_up: Callable[[str], Awaitable[RawPayload | RefusedRecord]],
    *,
    most: int = MAX_IDS,
) -> IngestPage:
    """One page: the records of the next identifiers, each asked for once, in their order.

    A record that the source does not have, or gives in a shape that cannot be read, is refused alone.

    Raises:
        SourceError: one that asking again may cure; the whole page is read again.
        ContractError: the cursor is not ours.
    """
    unique = list(dict.fromkeys(ids))
    cursor = read_cursor(request, IdCursor)
    done = cursor.done if cursor is not None else 0
    if done and done >= len(unique):
        raise ContractError(f"reading a page of {request.source}: its cursor lies behind the last identifier")
    batch = unique[done : done + min(max(request.limit, 1), most)]
    places = asyncio.Semaphore(_AT_ONCE)

    async def one(identifier: str) -> RawPayload | RefusedRecord | MedkgError:
        async with places:
            try:
                return await look_up(identifier)
            except MedkgError as error:
                if error.retryable:
                    return error
                return RefusedRecord(identifier, "", error.code, error.message)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(identifier)) for identifier in batch]
    found = [task.result() for task in tasks]
    if (failure := next((result for result in found if isinstance(result, MedkgError)), None)) is not None:
        raise failure
    done += len(batch)
    following = IdCursor(selection=selection_digest(request), done=done)
    return IngestPage(
        payloads=tuple(record for record in found if isinstance(record, RawPayload)),
        refused=tuple(record for record in found if isinstance(record, RefusedRecord)),
        next_cursor=write_cursor(following) if done < len(unique) else "",
        total=len(unique),
    )
