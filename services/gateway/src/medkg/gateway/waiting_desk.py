"""What the routes about waiting work with: the waits, decisions by hand, and how the topics are worked off."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from medkg.contracts import topics
from medkg.contracts.errors import ResourceUnavailableError
from medkg.contracts.messages import BreakerChange
from medkg.gateway.explaining import Flow
from medkg.runtime.broker import Groups, group_of
from medkg.storage.engine import Engine
from medkg.storage.operators import Action, Decided, decide
from medkg.storage.waits_reader import WaitsReader

MAX_BREAKERS = 10_000
_DECODE = msgspec.json.Decoder(BreakerChange).decode


class WaitingDesk(Protocol):
    """Answers about waits, and takes decisions about them."""

    @property
    def waits(self) -> WaitsReader: ...

    async def decide(
        self,
        tenant_id: str,
        action: Action,
        *,
        who: str,
        why: str,
        wait_ids: Sequence[str] = (),
        job_id: str = "",
        stage: str = "",
        seconds: float = 0.0,
    ) -> list[Decided]: ...

    async def flow(self, topic: str) -> Flow: ...


class Breakers:
    """The last state of every breaker of the fleet, as its topic tells it."""

    def __init__(self) -> None:
        self._known: dict[str, BreakerChange] = {}

    def hear(self, value: bytes) -> None:
        """One message of the topic; what cannot be read is passed over."""
        try:
            change = _DECODE(value)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return
        known = self._known.get(change.name)
        if (known is None and len(self._known) < MAX_BREAKERS) or (
            known is not None and (change.revision, change.worker) > (known.revision, known.worker)
        ):
            self._known[change.name] = change

    def of(self, service: str) -> tuple[BreakerChange, ...]:
        """Those of a service, by name."""
        return tuple(self._known[name] for name in sorted(self._known) if name.startswith(f"{service}."))


@dataclass(frozen=True, slots=True)
class FleetWaitingDesk:
    """The desk of a gateway on PostgreSQL and Kafka."""

    engine: Engine
    groups: Groups
    breakers: Callable[[str], tuple[BreakerChange, ...]]

    @property
    def waits(self) -> WaitsReader:
        return WaitsReader(self.engine)

    async def decide(
        self,
        tenant_id: str,
        action: Action,
        *,
        who: str,
        why: str,
        wait_ids: Sequence[str] = (),
        job_id: str = "",
        stage: str = "",
        seconds: float = 0.0,
    ) -> list[Decided]:
        """See :func:`medkg.storage.operators.decide`."""
        return await decide(
            self.engine,
            tenant_id,
            action,
            who=who,
            why=why,
            wait_ids=wait_ids,
            job_id=job_id,
            stage=stage,
            seconds=seconds,
        )

    async def flow(self, topic: str) -> Flow:
        """How a topic is worked off; what Kafka does not say is None."""
        group = group_of(topic)
        try:
            lag = (await self.groups.lags([topic])).get(topic)
            members = (await self.groups.members([group])).get(group)
        except ResourceUnavailableError:
            lag = members = None
        service = "mineru" if topic == topics.MINERU_QUEUE else group.removeprefix("medkg-")
        return Flow(topic, group, lag, members, self.breakers(service))
