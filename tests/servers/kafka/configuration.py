"""The settings of the one broker: a single KRaft node on loopback, small and quick to answer."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

# Shared by the broker from jars and the one in a container.
COMMON: Mapping[str, str] = MappingProxyType(
    {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "PLAINTEXT",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        # one node, so one replica of everything
        "default.replication.factor": "1",
        "min.insync.replicas": "1",
        "offsets.topic.replication.factor": "1",
        "offsets.topic.num.partitions": "4",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "transaction.state.log.num.partitions": "4",
        "share.coordinator.state.topic.replication.factor": "1",
        "share.coordinator.state.topic.min.isr": "1",
        "share.coordinator.state.topic.num.partitions": "4",
        # a misspelt topic is an error, not a new topic
        "auto.create.topics.enable": "false",
        "num.partitions": "1",
        # groups form and notice a lost member within a test's patience; the defaults take 5 to 45 s
        "group.initial.rebalance.delay.ms": "0",
        "group.min.session.timeout.ms": "100",
        "group.consumer.min.heartbeat.interval.ms": "100",
        "group.consumer.heartbeat.interval.ms": "250",
        "group.consumer.min.session.timeout.ms": "1000",
        "group.consumer.session.timeout.ms": "10000",
        # after kill -9 a restarted broker is refused until its old session ends; the default is 9 s
        "broker.session.timeout.ms": "1000",
        "broker.heartbeat.interval.ms": "200",
        # what a 256 MB heap on two cores can carry; the cleaner's default buffer alone is 128 MB
        "log.cleaner.dedupe.buffer.size": "4194304",
        "log.cleaner.threads": "1",
        "log.segment.bytes": "16777216",
        "log.index.size.max.bytes": "1048576",
        "num.network.threads": "2",
        "num.io.threads": "4",
        "background.threads": "4",
    }
)


def server_properties(port: int, controller_port: int, data: Path, proxied: tuple[int, int] | None = None) -> str:
    """The text of ``server.properties`` for a broker on 127.0.0.1.

    ``proxied`` is (port, port of a proxy in front of it): a further listener that clients are told to reach through the
    proxy.
    """
    settings = {
        **COMMON,
        "controller.quorum.voters": f"1@127.0.0.1:{controller_port}",
        "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
        "log.dirs": str(data),
    }
    if proxied is not None:
        settings["listener.security.protocol.map"] += ",PROXIED:PLAINTEXT"
        settings["listeners"] += f",PROXIED://127.0.0.1:{proxied[0]}"
        settings["advertised.listeners"] += f",PROXIED://127.0.0.1:{proxied[1]}"
    return "".join(f"{name}={value}\n" for name, value in settings.items())
