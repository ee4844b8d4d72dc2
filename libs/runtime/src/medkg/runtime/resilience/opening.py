"""The guards of a service at work: with the news of other replicas, and by the policies as they are."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from medkg.contracts import topics
from medkg.contracts.cloudevents import Message
from medkg.contracts.messages import BreakerChange
from medkg.runtime.broker.table import TopicTable
from medkg.runtime.metrics import ResilienceMetrics
from medkg.runtime.resilience.breaker_news import breaker_message, hear_of
from medkg.runtime.resilience.guards import Guards
from medkg.runtime.resilience.limits import Share
from medkg.runtime.settings import KafkaSettings
from medkg.runtime.topologies import TopologyLoader


@asynccontextmanager
async def open_guards(
    service: str,
    worker: str,
    kafka: KafkaSettings,
    send: Callable[[Message], None],
    loader: TopologyLoader,
    metrics: ResilienceMetrics,
) -> AsyncIterator[Guards]:
    """The guards of a service until the block is left. Its share of every rate is zero until partitions are assigned.

    The topic of breakers is read from the first breaker on: most services have none.
    """
    tables: list[TopicTable] = []

    def tell(change: BreakerChange) -> None:
        send(breaker_message(change, f"medkg/{service}"))

    def listen() -> asyncio.Event:
        tables.append(TopicTable(kafka, topics.BREAKERS, hear_of(guards.hear, service)))
        return tables[-1].is_caught_up

    guards = Guards(service, worker, metrics, share=Share(), tell=tell, listen=listen)
    watch = guards.watch(loader.policies, lambda: len(loader.problems()))
    watching = asyncio.create_task(watch, name=f"{service} policies")
    try:
        yield guards
    finally:
        watching.cancel()
        await asyncio.gather(watching, *(table.aclose() for table in tables), return_exceptions=True)
