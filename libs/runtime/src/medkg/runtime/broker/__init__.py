"""The only place that speaks to Kafka: consumers hosted by FastStream, one producer, the creation of topics.

FastStream declares and hosts the consumers; batches come out raw, and offsets are stored by the worker alone.
"""

from medkg.runtime.broker.creation import ensure_topics
from medkg.runtime.broker.groups import Groups, group_of
from medkg.runtime.broker.host import KafkaHost
from medkg.runtime.broker.jobs import job_event, publish_job_event
from medkg.runtime.broker.producer import Publisher
from medkg.runtime.broker.reaching import reach
from medkg.runtime.broker.reading import TopicReader
from medkg.runtime.broker.subscription import Sink, Subscription

__all__ = [
    "Groups",
    "KafkaHost",
    "Publisher",
    "Sink",
    "Subscription",
    "TopicReader",
    "ensure_topics",
    "group_of",
    "job_event",
    "publish_job_event",
    "reach",
]
