"""Peer (b): a plain FastStream application, written as its tutorial is.

Does: one subscriber a hop with a pydantic body, one message a call, every publish awaited; default settings with the
logger off, on uvloop as FastStream's own command runs it. With them offsets are committed in the background without
regard to the handler: a crash may lose what was being worked on.

Does not: deliver at least once, batch, know of jobs or pipelines, keep a ledger.
"""

import uvloop
from faststream import FastStream
from faststream.confluent import KafkaBroker

from medkg.benchmarks.peers.wire import Event, Hop, Work, hop_of_command_line


def application(hop: Hop) -> FastStream:
    """One hop."""
    broker = KafkaBroker(hop.kafka, logger=None)

    @broker.subscriber(hop.own_topic, group_id=hop.group, auto_offset_reset="earliest")
    async def handle(work: Work) -> None:
        key = work.doc_id.encode()
        if hop.next_topic is not None:
            await broker.publish(work, hop.next_topic, key=key)
        await broker.publish(Event(doc_id=work.doc_id, hop=hop.number, state="completed"), hop.events_topic, key=key)

    return FastStream(broker, logger=None)


def main() -> None:
    """Run one hop until SIGTERM."""
    uvloop.run(application(hop_of_command_line()).run())


if __name__ == "__main__":
    main()
