"""Many writes in few requests, with an answer for each."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import msgspec
from opensearchpy import AsyncOpenSearch

from medkg.contracts.errors import MedkgError
from medkg.haystack.opensearch.client import refusal, translated

MAX_BYTES: Final = 8 * 1024 * 1024  # of one request; OpenSearch refuses 100 MB
_ENCODE = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Action:
    """One write. ``seq_no`` and ``primary_term`` make it one that only happens if nobody wrote since they were read."""

    kind: Literal["index", "create", "delete"]
    id: str
    routing: str
    body: dict[str, Any] = field(default_factory=dict)
    seq_no: int | None = None
    primary_term: int | None = None

    def encoded(self) -> bytes:
        what: dict[str, Any] = {"_id": self.id, "routing": self.routing}
        if self.seq_no is not None:
            what |= {"if_seq_no": self.seq_no, "if_primary_term": self.primary_term}
        head = _ENCODE({self.kind: what})
        return head + b"\n" if self.kind == "delete" else head + b"\n" + _ENCODE(self.body) + b"\n"


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one write: done, in conflict with another one, or refused."""

    is_conflict: bool = False
    error: MedkgError | None = None


async def send(
    client: AsyncOpenSearch,
    index: str,
    actions: Sequence[Action],
    *,
    refresh: str = "false",
    doing: str,
    require_alias: bool = True,
) -> list[Result]:
    """Results in the order of ``actions``. A deletion of what is not there is done.

    ``index`` must be an alias unless ``require_alias`` says otherwise: a write to an alias that was taken away would
    make an index of that name.

    Raises:
        ResourceUnavailableError: a request failed as a whole; any of the writes may have happened.
    """
    results: list[Result] = []
    for body in _requests(actions):
        with translated(doing):
            answer = await client.bulk(
                body=body, index=index, params={"refresh": refresh, "require_alias": str(require_alias).lower()}
            )
        results += [_result(item, doing) for item in answer["items"]]
    return results


def _requests(actions: Sequence[Action]) -> Iterator[bytes]:
    parts: list[bytes] = []
    size = 0
    for action in actions:
        encoded = action.encoded()
        if parts and size + len(encoded) > MAX_BYTES:
            yield b"".join(parts)
            parts, size = [], 0
        parts.append(encoded)
        size += len(encoded)
    if parts:
        yield b"".join(parts)


def _result(item: dict[str, Any], doing: str) -> Result:
    ((kind, told),) = item.items()
    status = int(told.get("status", 500))
    error = told.get("error")
    if status == 409:
        return Result(is_conflict=True)
    if error is None and (status < 300 or (kind == "delete" and status == 404)):
        return Result()
    reason = error if isinstance(error, dict) else {"type": "unknown", "reason": str(error)}
    return Result(error=refusal(doing, status, str(reason.get("type")), str(reason.get("reason"))[:500]))
