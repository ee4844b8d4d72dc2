"""What the Kafka peers exchange: the names of their topics, and the two bodies."""

import argparse

from pydantic import BaseModel


class Work(BaseModel):
    """A document on its way."""

    doc_id: str
    text: str


class Event(BaseModel):
    """What a hop says of a document: ``completed``."""

    doc_id: str
    hop: int
    state: str


class Hop(BaseModel):
    """Which hop a process is: it reads ``own_topic`` and writes ``next_topic``, if it is not the last."""

    kafka: str
    prefix: str
    number: int
    hops: int

    @property
    def own_topic(self) -> str:
        return work_topic(self.prefix, self.number)

    @property
    def next_topic(self) -> str | None:
        return work_topic(self.prefix, self.number + 1) if self.number + 1 < self.hops else None

    @property
    def events_topic(self) -> str:
        return events_topic(self.prefix)

    @property
    def group(self) -> str:
        return f"{self.prefix}hop-{self.number}"


def work_topic(prefix: str, hop: int) -> str:
    """The topic that a hop reads."""
    return f"{prefix}hop-{hop}"


def events_topic(prefix: str) -> str:
    """The topic on which every hop says what it did."""
    return f"{prefix}events"


def hop_of_command_line() -> Hop:
    """The hop that this process was started as."""
    parser = argparse.ArgumentParser(description="One hop of a peer; the benchmark starts one process for each.")
    parser.add_argument("--kafka", required=True)
    parser.add_argument("--prefix", required=True)
    parser.add_argument("--number", type=int, required=True)
    parser.add_argument("--hops", type=int, required=True)
    return Hop.model_validate(vars(parser.parse_args()))
