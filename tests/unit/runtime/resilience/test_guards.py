"""Limit and breaker in front of a stage or a peer, and policies that change while they are at work."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from tests.unit.runtime.resilience.clock import in_virtual_time
from tests.unit.runtime.stage_kit import Told, implementation

from medkg.contracts.context import StageContext
from medkg.contracts.errors import MedkgError, PeerUnavailableError, SourceUnavailableError, StageTimeoutError
from medkg.contracts.messages import BreakerChange, BreakerState
from medkg.contracts.stages import StageType
from medkg.contracts.topology import Policies, Policy
from medkg.runtime.metrics import Metrics
from medkg.runtime.registry import OpenStage
from medkg.runtime.resilience import peers
from medkg.runtime.resilience.attempts import Attempt, Parked, run_under_policy
from medkg.runtime.resilience.breaker import BreakerOpen
from medkg.runtime.resilience.guards import MAX_PEERS, Guard, Guards
from medkg.runtime.resilience.threads import StageThreads

CTX = StageContext("clinic", "doc-1", "job-1")
BREAKER = {"failures": 3, "reset_seconds": 30}


def policy(**fields: Any) -> Policy:
    return Policy.model_validate({"jitter_seconds": 0, "initial_seconds": 1, "backoff": "none"} | fields)


def opened(stage: Any, **fields: Any) -> OpenStage:
    made = implementation(StageType.PARSE, stage, **fields)
    return OpenStage(made, ("ParseStage", made.name, made.version), "{}", stage, is_async=True)


def guards(metrics: Metrics | None = None, **fields: Any) -> Guards:
    return Guards("parse", "worker-1", (metrics or Metrics()).resilience("parse"), **fields)


class Ground:
    """Runs a stage under a guard, as its handler does."""

    def __init__(self, stage: Any, rule: Policy, made: Guards | None = None, **fields: Any) -> None:
        self.guards = made or guards()
        self.opened = opened(stage, **fields)
        self.heard: list[tuple[int, float]] = []
        self.rule = rule

    @property
    def guard(self) -> Guard:
        return self.guards.of_stage(self.opened, "default", self.rule)

    async def run(self, at: Attempt | None = None, *, park_seconds: float = 5.0) -> Any:
        threads = StageThreads(0, "none")
        hear: Callable[[MedkgError, int, float], None] = lambda _, number, wait: self.heard.append((number, wait))  # noqa: E731
        return await run_under_policy(
            self.opened, self.guard, threads, CTX, "input", hear, at=at, park_seconds=park_seconds
        )


def down(times: int = 100) -> list[BaseException]:
    return [SourceUnavailableError("503") for _ in range(times)]


def test_a_policy_without_limit_and_breaker_guards_nothing() -> None:
    async def main() -> None:
        assert guards().of_stage(opened(Told(lambda ctx, value: value)), "default", policy()).is_plain

    in_virtual_time(main())


def test_runs_come_no_faster_than_the_rate_and_their_wait_is_not_their_time() -> None:
    async def main() -> None:
        metrics = Metrics()
        at = Ground(
            Told(lambda ctx, value: asyncio.get_running_loop().time()),
            policy(rate_per_second=0.5, timeout_seconds=1),
            guards(metrics),
        )
        moments = await asyncio.gather(*(at.run() for _ in range(4)))
        assert [moment - 1_000 for moment in moments] == pytest.approx([2, 4, 6, 8], abs=0.01)
        waited = metrics.registry.get_sample_value("medkg_rate_limit_wait_seconds_sum", {"guard": "parse.told/default"})
        assert waited == pytest.approx(20, abs=0.1)

    in_virtual_time(main())


def test_each_further_attempt_takes_a_turn_too() -> None:
    async def main() -> None:
        stage = Told(lambda ctx, value: asyncio.get_running_loop().time(), raises=down(3))
        assert await Ground(stage, policy(attempts=3, rate_per_second=0.5)).run() == pytest.approx(1_008, abs=0.01)

    in_virtual_time(main())


def test_an_open_breaker_burns_no_attempt() -> None:
    async def main() -> None:
        stage = Told(lambda ctx, value: "done", raises=down(3))
        at, done = Ground(stage, policy(attempts=3, breaker=BREAKER)), Attempt()
        with pytest.raises(BreakerOpen):
            await at.run(done)
        assert (len(stage.calls), done.number) == (3, 4)  # the third failure has opened it
        for _ in range(50):
            with pytest.raises(BreakerOpen):
                await at.run(done)
        assert (len(stage.calls), done.number) == (3, 4)
        await asyncio.sleep(30.1)
        assert await at.run(done) == "done"

    in_virtual_time(main())


def test_a_probe_that_fails_burns_no_attempt_of_its_document_but_not_for_ever() -> None:
    async def main() -> None:
        stage = Told(lambda ctx, value: "done", raises=down())
        at = Ground(stage, policy(attempts=1, breaker=BREAKER))
        for _ in range(2):
            with pytest.raises((SourceUnavailableError, BreakerOpen)):
                await at.run()
        probe, probes = Attempt(1), 0
        while True:
            await asyncio.sleep(30.1)
            try:
                await at.run(probe)
            except BreakerOpen as error:
                probes += error.was_probed
                assert probe.number == (1 if error.was_probed else 2)
            except SourceUnavailableError:
                break
            else:
                pytest.fail("it cannot succeed")
            if probes > 20:
                pytest.fail("one document probes for ever")
        assert probes == 10

    in_virtual_time(main())


def test_a_wait_above_the_threshold_is_parked_with_the_next_attempt() -> None:
    async def main() -> None:
        stage = Told(lambda ctx, value: "done", raises=down())
        at = Ground(stage, policy(backoff="exponential", initial_seconds=4, attempts=3))
        with pytest.raises(Parked) as parked:
            await at.run(Attempt(1))
        assert (parked.value.attempt, parked.value.seconds, parked.value.error.code) == (3, 8.0, "source_unavailable")
        assert at.heard == [(2, 4.0)]
        with pytest.raises(Parked) as parked:  # as the router hands it back
            await at.run(Attempt(3))
        assert (parked.value.attempt, parked.value.seconds) == (4, 16.0)
        with pytest.raises(SourceUnavailableError):
            await at.run(Attempt(4))
        assert len(stage.calls) == 1 + 3  # never more than the policy allows in all

    in_virtual_time(main())


@pytest.mark.parametrize("attempt", [5, 6, 50])
def test_an_attempt_beyond_the_policy_is_the_last_one(attempt: int) -> None:
    async def main() -> None:
        stage = Told(lambda ctx, value: "done", raises=down())
        with pytest.raises(SourceUnavailableError):
            await Ground(stage, policy(attempts=3)).run(Attempt(attempt))
        assert len(stage.calls) == 1

    in_virtual_time(main())


# policies that change


def test_a_changed_policy_is_taken_up_by_guards_at_work() -> None:
    async def main() -> None:
        rule = policy(rate_per_second=0.1)
        at = Ground(Told(lambda ctx, value: asyncio.get_running_loop().time()), rule)
        waiting = [asyncio.create_task(at.run()) for _ in range(3)]
        await asyncio.sleep(1)
        changed = Policies(policies={"default": policy(rate_per_second=10)})
        at.guards.look(lambda: changed)
        assert await asyncio.gather(*waiting) == pytest.approx([1_001.1, 1_001.2, 1_001.3], abs=0.01)
        at.guards.look(lambda: Policies(policies={"default": policy(attempts=2)}))
        assert at.guards.of_stage(at.opened, "default", policy(attempts=2)).is_plain

    in_virtual_time(main())


def test_a_breaker_keeps_its_count_through_a_change_and_goes_with_its_rule() -> None:
    async def main() -> None:
        at = Ground(Told(lambda ctx, value: "done", raises=down(2)), policy(breaker=BREAKER, attempts=1))
        with pytest.raises(SourceUnavailableError):
            await at.run()
        at.rule = policy(breaker=BREAKER, attempts=1, timeout_seconds=7)
        assert at.guard.policy.timeout_seconds == 7
        assert at.guard.breaker is not None
        at.guard.leave(await at.guard.enter(), SourceUnavailableError("503"))
        assert not at.guard.breaker.is_closed
        at.rule = policy()
        assert at.guard.is_plain
        assert await at.run() == "done"

    in_virtual_time(main())


def test_policies_that_cannot_be_read_change_nothing_and_are_counted() -> None:
    async def main() -> None:
        metrics = Metrics()
        at = Ground(Told(lambda ctx, value: "done"), policy(rate_per_second=5), guards(metrics))
        await at.run()
        same = Policies(policies={"default": at.rule})
        at.guards.look(lambda: same, lambda: 2)
        assert metrics.registry.get_sample_value("medkg_configuration_problems") == 2
        assert at.guard.limit is not None

    in_virtual_time(main())


# peers


class Caller:
    """A stage that calls the hosts it is told to; those in ``broken`` do not answer."""

    def __init__(self, *hosts: str, broken: set[str] | None = None, seconds: float = 0.0) -> None:
        self.hosts = hosts
        self.broken = broken or set()
        self.seconds = seconds
        self.called: list[tuple[str, float]] = []

    async def execute(self, ctx: StageContext, value: object) -> str:
        await asyncio.sleep(0)
        for host in self.hosts:
            async with peers.guard(host):
                self.called.append((host, round(asyncio.get_running_loop().time() - 1_000, 2)))
                await asyncio.sleep(self.seconds)
                if host in self.broken:
                    raise SourceUnavailableError(f"reading {host}: 503")
        return "done"


def test_each_peer_has_a_rate_of_its_own_and_waiting_for_it_is_not_time_of_the_stage() -> None:
    async def main() -> None:
        stage = Caller("a.org", "b.org")
        at = Ground(stage, policy(rate_per_second=0.2, timeout_seconds=1), calls_peers=True)
        assert await asyncio.gather(*(at.run() for _ in range(3))) == ["done"] * 3
        assert [at for host, at in stage.called if host == "a.org"] == [5.0, 10.0, 15.0]
        assert [at for host, at in stage.called if host == "b.org"] == [10.0, 15.0, 20.0]

    in_virtual_time(main())


def test_time_at_a_peer_is_time_of_the_stage() -> None:
    async def main() -> None:
        at = Ground(Caller("a.org", seconds=2), policy(attempts=1, timeout_seconds=1), calls_peers=True)
        with pytest.raises(StageTimeoutError):
            await at.run()

    in_virtual_time(main())


@pytest.mark.parametrize("how", ["answers with errors", "does not answer"])
def test_a_broken_peer_parks_its_documents_with_the_same_attempt_and_others_go_on(how: str) -> None:
    async def main() -> None:
        slow = how == "does not answer"
        rule = policy(attempts=2, breaker=BREAKER, timeout_seconds=1)
        made = guards()
        bad = Ground(
            Caller("bad.org", broken=set() if slow else {"bad.org"}, seconds=9 * slow), rule, made, calls_peers=True
        )
        good = Ground(Caller("good.org"), rule, made, calls_peers=True)
        with pytest.raises((SourceUnavailableError, StageTimeoutError)):
            await bad.run()
        with pytest.raises(Parked) as parked:
            await bad.run(Attempt(2))
        assert isinstance(parked.value.error, PeerUnavailableError)
        assert parked.value.error.code == "peer_unavailable"
        assert parked.value.attempt == 2  # nothing is burnt
        assert 29 <= parked.value.seconds <= 30 * 1.25
        assert await good.run() == "done"

    in_virtual_time(main())


def test_hosts_are_the_same_in_any_case_and_no_more_than_so_many_are_remembered() -> None:
    async def main() -> None:
        made = guards()
        stage = Ground(Caller(), policy(rate_per_second=5), made, calls_peers=True).guard
        first = stage.of_peer("0.example.org")
        assert stage.of_peer("0.example.org") is first
        for number in range(1, MAX_PEERS + 1):
            stage.of_peer(f"{number}.example.org")
        assert stage.of_peer("0.example.org") is not first

    in_virtual_time(main())


def test_a_changed_policy_reaches_the_peers_too() -> None:
    async def main() -> None:
        at = Ground(Caller("a.org"), policy(rate_per_second=0.1), calls_peers=True)
        waiting = asyncio.create_task(at.run())
        await asyncio.sleep(1)
        at.guards.look(lambda: Policies(policies={"default": policy(rate_per_second=10)}))
        await asyncio.wait_for(waiting, 0.2)

    in_virtual_time(main())


async def test_outside_of_a_stage_a_peer_is_not_guarded() -> None:
    async with peers.guard("a.org"):
        pass


def test_news_of_a_breaker_that_is_not_there_yet_hold_when_it_comes() -> None:
    async def main() -> None:
        metrics = Metrics()
        listened: list[int] = []
        made = guards(metrics, listen=lambda: listened.append(1))
        until = int(asyncio.get_running_loop().time() * 1_000) + 10**15
        made.hear(BreakerChange("parse.told/default", BreakerState.OPEN, 10**14, "other", until))
        at = Ground(Told(lambda ctx, value: "done"), policy(breaker=BREAKER), made)
        with pytest.raises(BreakerOpen):
            await at.run()
        assert listened == [1]
        made.look(lambda: Policies(policies={"default": at.rule}))
        label = {"guard": "parse.told/default"}
        assert metrics.registry.get_sample_value("medkg_breakers_open", label) == 1
        made.hear(BreakerChange("parse.told/default", BreakerState.CLOSED, 10**14 + 1, "other"))
        assert await at.run() == "done"
        made.look(lambda: Policies(policies={"default": at.rule}))
        assert metrics.registry.get_sample_value("medkg_breakers_open", label) == 0

    in_virtual_time(main())
