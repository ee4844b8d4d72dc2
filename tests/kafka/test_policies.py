"""Policies on a real Kafka, with several replicas: limits of the fleet, breakers that agree, limits that stop."""

import asyncio
import time
from bisect import bisect_left
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient, ConfigResource  # type: ignore[attr-defined]  # its stubs forget it
from tests.kafka.policies_kit import Ground, Scripted, ground, install, until

from medkg.contracts import topics
from medkg.contracts.context import StageContext
from medkg.contracts.document import Document
from medkg.contracts.errors import SourceUnavailableError
from medkg.contracts.messages import BreakerChange, BreakerState
from medkg.contracts.topology import Backoff, Breaker, Policies, Policy
from medkg.runtime.broker import Publisher, TopicReader, ensure_topics
from medkg.runtime.broker.table import TopicTable
from medkg.runtime.resilience.breaker_news import breaker_message, hear_of
from medkg.runtime.resilience.stopping import WorkerStopped
from medkg.runtime.topologies import TopologyLoader

pytestmark = pytest.mark.kafka
__all__ = ["ground", "install"]  # fixtures

Install = Callable[[Any], None]


def parsed(ctx: StageContext) -> Document:
    return Document(ctx.doc_id, "files", ctx.doc_id, "text", "Aspirin", ())


def most_in_any(window: float, moments: list[float]) -> int:
    moments = sorted(moments)
    return max(bisect_left(moments, start + window) - index for index, start in enumerate(moments))


async def test_the_fleet_keeps_to_its_rate_while_replicas_come_and_go(ground: Ground, install: Install) -> None:
    rate = 25.0
    ground.write_policies(f"rate_per_second: {rate}")
    stage = Scripted(parsed)
    install(stage)
    async with AsyncExitStack() as first, AsyncExitStack() as second:
        one = await first.enter_async_context(ground.replica("one"))
        await until(lambda: one.partitions == 4, "the first has all partitions")
        await ground.ask(one, [f"doc-{number}" for number in range(220)])
        await until(lambda: len(stage.runs) >= 50, "a good part is done")
        two = await second.enter_async_context(ground.replica("two"))
        await until(lambda: one.partitions == two.partitions == 2, "both have half")
        await until(lambda: len(stage.runs) >= 120, "both have worked")
        await first.aclose()
        await until(lambda: len({doc for doc, _ in stage.runs}) == 220, "all are done")
        waited = two.shown("medkg_rate_limit_wait_seconds_count", guard="parse.told/default")
    moments = [at for _, at in stage.runs]
    for window in (0.2, 1.0, 4.0):
        assert most_in_any(window, moments) <= rate * window + 2 + 1, f"in {window} s"  # + 1: the clock of the test
    assert waited > 10
    assert len(moments) / (max(moments) - min(moments)) > rate / 2  # and it is made use of


async def test_an_open_breaker_holds_all_replicas_and_loses_and_burns_nothing(
    ground: Ground, install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    rule = Breaker.model_construct(failures=3, reset_seconds=6.0)  # shorter than a file may say
    policy = Policy(attempts=2, backoff=Backoff.NONE, timeout_seconds=2).model_copy(update={"breaker": rule})
    monkeypatch.setattr(TopologyLoader, "policies", lambda self: Policies.model_construct(policies={"default": policy}))
    ground.write_policies("attempts: 2")
    is_down = True

    def work(ctx: StageContext) -> Document:
        if is_down:
            raise SourceUnavailableError("the model server: 503")
        return parsed(ctx)

    stage = Scripted(work)
    install(stage)
    async with ground.replica("one") as one:
        await until(lambda: one.partitions == 4, "the first has all partitions")
        await ground.ask(one, [f"doc-{number}" for number in range(40)])
        held = {"service": "parse", "reason": "breaker"}
        await until(lambda: one.shown("medkg_worker_paused", **held) == 1, "it is held")
        begun, since = len(stage.runs), time.monotonic()
        async with ground.replica("two") as two:
            await until(lambda: two.shown("medkg_worker_paused", **held) == 1, "the other is held too")
            await until(lambda: time.monotonic() - since > 13, "there was time for two resets")
            probes = len(stage.runs) - begun
            assert 1 <= probes <= 3, f"{probes} runs in the fleet in 13 s: the other one had it by hearsay"
            assert (one.at_work.worker.seconds_without_progress, two.at_work.worker.seconds_without_progress) == (0, 0)
            is_down = False
            await until(lambda: ground.committed() >= 40, "everything is done once it is back", seconds=30)
            for replica in (one, two):
                assert replica.shown("medkg_worker_paused", **held) == 0
                failures = replica.shown("medkg_dead_letters_total", stage="parse", code="source_unavailable")
                assert failures <= 1  # the document whose last attempt opened it


async def test_a_changed_policy_is_taken_up_and_a_wrong_one_refused(ground: Ground, install: Install) -> None:
    ground.write_policies("rate_per_second: 0.2")
    stage = Scripted(parsed)
    install(stage)
    async with ground.replica("one") as one:
        await until(lambda: one.partitions == 4, "it has all partitions")
        await ground.ask(one, [f"doc-{number}" for number in range(30)])
        await asyncio.sleep(1.5)
        assert len(stage.runs) <= 1
        ground.write_policies("rate_per_second: 50")
        begun = time.monotonic()
        await until(lambda: len(stage.runs) == 30, "the new rate is in force", seconds=8)
        assert time.monotonic() - begun < 8
        ground.write_policies("rate_per_second: 9000")
        await until(lambda: one.shown("medkg_configuration_problems") == 1, "the refusal shows")
        await ground.ask(one, [f"more-{number}" for number in range(30)])
        await until(lambda: len(stage.runs) == 60, "it goes on by the old one", seconds=8)
    moments = [at for _, at in stage.runs[30:]]
    assert most_in_any(0.2, moments) <= 50 * 0.2 + 2


async def test_a_bad_release_stops_before_it_has_drained_the_topic(ground: Ground, install: Install) -> None:
    def crash(ctx: StageContext) -> Document:
        raise KeyError("a bad release")

    ground.write_policies("attempts: 1")
    install(Scripted(crash))
    async with ground.replica("bad", concurrency=1, dead_letter_run=5) as bad:
        await until(lambda: bad.partitions == 4, "it has all partitions")
        await ground.ask(bad, [f"doc-{number}" for number in range(30)])
        await until(bad.failed.is_set, "it stops by itself")
        assert isinstance(bad.at_work.worker.failure, WorkerStopped)
        assert "6 documents in a row have failed" in str(bad.at_work.worker.failure)
    letters = 0
    async with TopicReader(ground.kafka) as reader:
        async for batch in reader.whole("medkg.dead-letter.v1"):
            letters += len(batch)
    assert letters == 5
    assert ground.committed() == 5

    good = Scripted(parsed)
    install(good)
    async with ground.replica("good") as back:
        await until(lambda: back.partitions == 4, "the old release has all partitions")
        await until(lambda: len({doc for doc, _ in good.runs}) == 25, "what was no dead letter is done")
        await until(lambda: ground.committed() == 30, "and committed")


async def test_whoever_comes_reads_all_breakers_of_its_service_and_then_each_change(ground: Ground) -> None:
    await ensure_topics(ground.kafka, [topics.BREAKERS], compacted=[topics.BREAKERS])
    publisher = Publisher(ground.kafka)
    names = ["parse.a/default", "parse.b/default", "embed.c/gpu-bound", "parse.a/default"]
    changes = [BreakerChange(name, BreakerState.OPEN, number, "one") for number, name in enumerate(names)]
    assert not await publisher.publish([breaker_message(change, "medkg/parse") for change in changes])

    heard: list[BreakerChange] = []
    table = TopicTable(ground.kafka, topics.BREAKERS, hear_of(heard.append, "parse"))
    try:
        await asyncio.wait_for(table.is_caught_up.wait(), 20)
        assert heard == [changes[0], changes[1], changes[3]]
        closed = BreakerChange("parse.a/default", BreakerState.CLOSED, 9, "two")
        assert not await publisher.publish([breaker_message(closed, "medkg/parse")])
        await until(lambda: heard[-1] == closed, "the change is heard")
    finally:
        await table.aclose()
    admin = AdminClient({"bootstrap.servers": ground.kafka.bootstrap})
    name = ConfigResource(ConfigResource.Type.TOPIC, ground.kafka.topic_prefix + topics.BREAKERS)
    (described,) = admin.describe_configs([name]).values()
    assert described.result(timeout=10)["cleanup.policy"].value == "compact"
