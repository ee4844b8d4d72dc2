"""Guards: the rate limit and the breaker in front of a stage, or of each peer that it calls, as its policy says.

There is one guard for each implementation and policy, and one more for each peer of a stage that calls several. A guard
outlives a change of resilience.yaml: it takes up the new policy, keeps what it has counted, and goes on.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from medkg.contracts.errors import MedkgError
from medkg.contracts.messages import BreakerChange
from medkg.contracts.topology import Policies, Policy
from medkg.runtime.metrics import ResilienceMetrics
from medkg.runtime.registry import OpenStage
from medkg.runtime.resilience.breaker import Breaker, BreakerOpen, Turn
from medkg.runtime.resilience.limits import RateLimit, Share

log = logging.getLogger(__name__)

MAX_PEERS = 1_000  # of one stage: a hostile redirect must not fill the memory
_WATCH_SECONDS = 1.0
_NEWS_SECONDS = 5.0  # for which the first documents wait, at most


class Guard:
    """Limit and breaker in front of one thing. Without either, ``run`` adds nothing."""

    __slots__ = ("_guards", "breaker", "calls_peers", "is_of_peer", "is_plain", "label", "limit", "name", "policy")

    def __init__(
        self,
        guards: "Guards",
        name: str,
        label: str,
        policy: Policy,
        *,
        calls_peers: bool = False,
        is_of_peer: bool = False,
    ) -> None:
        self._guards = guards
        self.name = name
        self.label = label  # in metrics: without the peer, of which there may be many
        self.calls_peers = calls_peers
        self.is_of_peer = is_of_peer
        self.limit: RateLimit | None = None
        self.breaker: Breaker | None = None
        self.adopt(policy)

    def adopt(self, policy: Policy) -> None:
        """Guard by this policy from now on."""
        self.policy = policy
        rate = None if self.calls_peers else policy.rate_per_second
        rule = None if self.calls_peers else policy.breaker
        if self.limit is not None and rate is not None:
            self.limit.change(rate)
        elif self.limit is not None:
            self.limit.close()
            self.limit = None
        elif rate is not None:
            self.limit = RateLimit(rate, self._guards.share)
        if self.breaker is not None and rule is not None:
            self.breaker.change(rule, policy.timeout_seconds)
        elif self.breaker is not None:
            self.breaker.dissolve()
            self.breaker = None
        elif rule is not None:
            self.breaker = self._guards.breaker(self.name, rule, policy.timeout_seconds)
        self.is_plain = self.limit is None and self.breaker is None

    async def enter(self) -> Turn | None:
        """Wait for a turn, and ask the breaker.

        Raises:
            BreakerOpen: not now.
        """
        if self.breaker is not None:
            await self._guards.until_news_are_read()
        if self.breaker is not None and self.breaker.seconds_left > 0:
            raise BreakerOpen(self.breaker, is_of_peer=self.is_of_peer)  # no turn is spent on it
        if self.limit is not None:
            self._guards.metrics.limit_wait.labels(self.label).observe(await self.limit.acquire())
        return self.breaker.admit(is_of_peer=self.is_of_peer) if self.breaker is not None else None

    def leave(self, turn: Turn | None, error: BaseException | None) -> None:
        """How it went."""
        if turn is not None and self.breaker is not None:
            self.breaker.ended(turn, error)

    async def run(self, work: Callable[[], Awaitable[Any]], *, may_probe_again: bool = False) -> Any:
        """The result of ``work``.

        Raises:
            BreakerOpen: not run, or (with ``may_probe_again``) run as a probe that failed.
        """
        turn = await self.enter()
        try:
            output = await work()
        except MedkgError as error:
            self.leave(turn, error)
            if turn is not None and turn.is_probe and error.trips_breaker and may_probe_again and self.breaker:
                raise BreakerOpen(self.breaker, was_probed=True) from error
            raise
        except BaseException as error:
            self.leave(turn, error)
            raise
        self.leave(turn, None)
        return output

    def of_peer(self, host: str) -> "Guard":
        """The guard of one peer of this stage."""
        return self._guards.of_peer(self, host)

    def close(self) -> None:
        """Give up what it holds."""
        if self.limit is not None:
            self.limit.close()


class Guards:
    """The guards of one service."""

    def __init__(
        self,
        service: str,
        worker: str,
        metrics: ResilienceMetrics,
        *,
        share: Share | None = None,
        tell: Callable[[BreakerChange], None] = lambda change: None,
        listen: Callable[[], asyncio.Event | None] = lambda: None,
    ) -> None:
        """``tell`` other replicas of a change; ``listen`` to them is called once, when there is the first breaker.

        The event that it returns is set once everything was heard that they have told before.
        """
        self.service = service
        self.metrics = metrics
        self.share = share if share is not None else Share(1.0)
        self._worker = worker
        self._tell = tell
        self._listen: Callable[[], asyncio.Event | None] | None = listen
        self._is_news_read: asyncio.Event | None = None
        self._of_stages: dict[tuple[str, str], Guard] = {}
        self._of_peers: OrderedDict[str, Guard] = OrderedDict()
        self._heard: OrderedDict[str, BreakerChange] = OrderedDict()

    def of_stage(self, opened: OpenStage, name: str, policy: Policy) -> Guard:
        """The guard of an implementation under a policy, by the policy as it is now."""
        key = (opened.identity[1], name)
        guard = self._of_stages.get(key)
        if guard is None:
            label = f"{self.service}.{key[0]}/{name}"
            peers = opened.implementation.calls_peers
            guard = self._of_stages[key] = Guard(self, label, label, policy, calls_peers=peers)
        elif guard.policy is not policy:
            self._adopt(guard, policy)
        return guard

    def of_peer(self, stage: Guard, host: str) -> Guard:
        """The guard of one peer of a stage; the one that was used longest ago is forgotten for a new one."""
        name = f"{stage.name}@{host}"
        guard = self._of_peers.get(name)
        if guard is None:
            guard = self._of_peers[name] = Guard(self, name, stage.label, stage.policy, is_of_peer=True)
            if len(self._of_peers) > MAX_PEERS:
                self._of_peers.popitem(last=False)[1].close()
        elif guard.policy is not stage.policy:
            guard.adopt(stage.policy)
        self._of_peers.move_to_end(name)
        return guard

    def breaker(self, name: str, rule: Any, probe_seconds: float) -> Breaker:
        """A new breaker, in the state that other replicas have told of."""
        if self._listen is not None:
            listen, self._listen = self._listen, None
            self._is_news_read = listen()
        made = Breaker(name, rule, self._worker, self._told, probe_seconds=probe_seconds)
        if name in self._heard:
            made.adopt(self._heard[name])
        return made

    async def until_news_are_read(self) -> None:
        """Wait, for a while, until it is known which breakers are open already."""
        if self._is_news_read is None:
            return
        try:
            async with asyncio.timeout(_NEWS_SECONDS):
                await self._is_news_read.wait()
        except TimeoutError:
            log.warning("what other replicas know of breakers could not be read in %s s; going on", _NEWS_SECONDS)
        self._is_news_read = None

    def hear(self, change: BreakerChange) -> None:
        """Another replica has changed a breaker."""
        self._heard[change.name] = change
        self._heard.move_to_end(change.name)
        if len(self._heard) > 10 * MAX_PEERS:
            self._heard.popitem(last=False)
        for guard in self._all():
            if guard.name == change.name and guard.breaker is not None:
                guard.breaker.adopt(change)

    async def watch(self, policies: Callable[[], Policies], problems: Callable[[], int] = lambda: 0) -> None:
        """Take up changed policies and show the state of breakers, also while no document comes. Until cancelled."""
        while True:
            await asyncio.sleep(_WATCH_SECONDS)
            self.look(policies, problems)

    def look(self, policies: Callable[[], Policies], problems: Callable[[], int] = lambda: 0) -> None:
        """One round of :meth:`watch`."""
        try:
            known = policies().policies
        except MedkgError as error:  # nothing valid was ever there: documents meet the same error and say so
            log.warning("policies: %s", error.message)
            return
        for (_, name), guard in self._of_stages.items():
            if name in known and guard.policy is not known[name]:
                self._adopt(guard, known[name])
        open_by_label = {guard.label: 0 for guard in self._all()}
        for guard in self._all():
            open_by_label[guard.label] += guard.breaker is not None and not guard.breaker.is_closed
        for label, count in open_by_label.items():
            self.metrics.breakers_open.labels(label).set(count)
        self.metrics.problems.set(problems())

    def _adopt(self, guard: Guard, policy: Policy) -> None:
        if guard.policy != policy:
            log.info("%s goes by its changed policy: %s", guard.name, policy.model_dump_json(exclude_defaults=True))
        guard.adopt(policy)
        for name, peer in self._of_peers.items():
            if name.startswith(f"{guard.name}@"):
                peer.adopt(policy)

    def _told(self, change: BreakerChange) -> None:
        level = logging.INFO if change.state == "closed" else logging.WARNING
        log.log(level, "breaker %s is %s", change.name, change.state.value)
        self._tell(change)

    def _all(self) -> Iterator[Guard]:
        yield from self._of_stages.values()
        yield from self._of_peers.values()
