"""Peer (c): FastStream's batch subscribers.

Does: one batch subscriber a hop, up to 500 messages a call, each batch written with ``publish_batch``; otherwise the
default settings with the logger off, on uvloop as FastStream's own command runs it. Offsets are committed in the
background without regard to the handler: a crash may lose what was being worked on. ``publish_batch`` takes no keys, so
the order of a document's messages rests on there being one partition.

Does not: deliver at least once, know of jobs or pipelines, keep a ledger.
"""

import uvloop
from faststream import FastStream
from faststream.confluent import KafkaBroker

from medkg.benchmarks.peers.wire import Event, Hop, Work, hop_of_command_line

BATCH = 500


def application(hop: Hop) -> FastStream:
    """One hop."""
    broker = KafkaBroker(hop.kafka, logger=None)

    def completed(works: list[Work]) -> list[Event]:
        return [Event(doc_id=work.doc_id, hop=hop.number, state="completed") for work in works]

    @broker.subscriber(hop.own_topic, group_id=hop.group, auto_offset_reset="earliest", batch=True, max_records=BATCH)
    async def handle(works: list[Work]) -> None:
        if hop.next_topic is not None:
            await broker.publish_batch(*works, topic=hop.next_topic)
        await broker.publish_batch(*completed(works), topic=hop.events_topic)

    return FastStream(broker, logger=None)


def main() -> None:
    """Run one hop until SIGTERM."""
    uvloop.run(application(hop_of_command_line()).run())


if __name__ == "__main__":
    main()
