"""The environment of every medkg process: variables with the prefix ``MEDKG_``."""

import os
import socket
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from medkg.contracts.errors import ConfigurationError

S = TypeVar("S", bound=BaseSettings)


def from_environment(kind: type[S]) -> S:
    """Settings of one kind, read from the environment.

    Raises:
        ConfigurationError: variables that cannot be used, each by its name; values may be secrets and are left out.
    """
    try:
        return kind()
    except ValidationError as error:
        prefix = kind.model_config.get("env_prefix", "")
        faults = "; ".join(
            f"{prefix}{'_'.join(map(str, detail['loc'])).upper()}: {detail['msg']}"
            for detail in error.errors(include_url=False, include_input=False)
        )
        raise ConfigurationError(f"reading the environment: {faults} (see docs/reference/settings.md)") from error


def _default_worker_id() -> str:
    return f"{socket.gethostname()}-{os.getpid()}"


class KafkaSettings(BaseSettings):
    """How to reach Kafka, and how records are taken from it."""

    model_config = SettingsConfigDict(env_prefix="MEDKG_KAFKA_", extra="ignore")

    bootstrap: str = Field("127.0.0.1:9092", description="Kafka bootstrap servers, HOST:PORT[,HOST:PORT…].")
    topic_prefix: str = Field(
        "", description="Put before every topic and consumer group: several fleets on one cluster."
    )
    partitions: int = Field(4, ge=1, le=1024, description="Partitions of a topic that is created.")
    replication_factor: int = Field(1, ge=1, le=9, description="Replicas of a topic that is created.")
    create_topics: bool = Field(True, description="Create missing topics at start.")
    security_protocol: Literal["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"] = Field(
        "plaintext", description="Transport to Kafka."
    )
    sasl_mechanism: str = Field("", description="SASL mechanism, such as SCRAM-SHA-512.")
    sasl_username: str = Field("", description="SASL user name.")
    sasl_password: SecretStr = Field(SecretStr(""), description="SASL password.")
    session_timeout_ms: int = Field(
        6_000, ge=1_000, description="Silence after which a group member counts as dead, and its partitions move."
    )
    heartbeat_interval_ms: int = Field(1_500, ge=50, description="How often a group member says that it lives.")
    max_poll_interval_ms: int = Field(300_000, ge=10_000, description="Longest pause between two polls.")
    request_timeout_ms: int = Field(
        10_000,
        ge=1_000,
        le=100_000,
        description="How long Kafka may take to answer; after it the connection counts as lost, and is made anew.",
    )
    auto_commit_interval_ms: int = Field(1_000, ge=50, description="How often stored offsets are committed.")
    fetch_wait_ms: int = Field(
        100, ge=1, le=10_000, description="How long Kafka may hold a fetch back while there is nothing to send."
    )
    compression: Literal["none", "lz4", "zstd", "snappy", "gzip"] = Field(
        "lz4", description="How messages are compressed on the way to Kafka and in it."
    )
    batch_records: int = Field(500, ge=1, le=10_000, description="Most records taken with one poll.")
    is_in_process: bool = Field(
        False, description="The broker is librdkafka's in-process cluster: topics appear on first use."
    )


class RuntimeSettings(BaseSettings):
    """What every service needs beside Kafka."""

    model_config = SettingsConfigDict(env_prefix="MEDKG_", extra="ignore")

    data_dir: Path = Field(Path(".medkg"), description="Folder of the embedded stores.")
    blobs_url: str = Field(
        "", description="Where artefacts lie: file:///folder or s3://bucket/prefix; default DATA_DIR/blobs."
    )
    blobs_endpoint: str = Field("", description="Endpoint of an S3-compatible server, such as http://127.0.0.1:9000.")
    database_url: SecretStr = Field(SecretStr(""), description="PostgreSQL of ledger, waits and graph: postgresql://…")
    topologies_dir: Path | None = Field(None, description="Folder of the topologies; default ./topologies.")
    worker_id: str = Field(default_factory=_default_worker_id, description="Name of this process in events and logs.")
    concurrency: int = Field(16, ge=1, le=1024, description="Documents worked on at the same time.")
    threads: int = Field(
        default_factory=lambda: min(os.cpu_count() or 4, 4),
        ge=1,
        le=256,
        description="Threads for stages that are plain functions; one for each core, 4 at most.",
    )
    high_water: int = Field(1_000, ge=1, description="Taken records above which partitions are paused.")
    low_water: int = Field(250, ge=0, description="Taken records under which partitions are resumed.")
    high_water_bytes: int = Field(
        67_108_864, ge=65_536, description="Bytes of taken records above which partitions are paused."
    )
    open_bytes: int = Field(
        134_217_728, ge=1_048_576, description="Bytes of inputs from the blob store that are open at once."
    )
    memory_soft_bytes: int | None = Field(
        None, ge=0, description="Above it the window shrinks; default 80 % of the container's limit, 0 for none."
    )
    park_retry_seconds: float = Field(
        5, ge=0, le=3_600, description="A retry after a longer wait waits at the gate-router, not in the window."
    )
    tell_starts_seconds: float = Field(
        0.1, ge=0, le=60, description="A run that is over sooner is told of by its end alone. 0: every start is told."
    )
    dead_letter_run: int = Field(
        100, ge=0, description="More documents in a row than these fail: the worker stops. 0: never."
    )
    dead_letter_ratio: float = Field(
        0.5, ge=0, le=1, description="A greater part of the last 1,000 documents fails: the worker stops. 0: never."
    )
    drain_seconds: float = Field(20, ge=0, le=600, description="How long a stop or rebalance waits for what is begun.")
    inline_bytes: int = Field(
        16_384, ge=0, le=262_144, description="Artefacts up to this size travel inside the message."
    )
    start_wait_seconds: float = Field(
        0, ge=0, description="How long a start waits for Kafka, PostgreSQL or the blob store, if away. 0: for ever."
    )
    stall_seconds: float = Field(900, ge=10, description="Work without any progress for so long: no longer alive.")
    http_host: str = Field("127.0.0.1", description="Address of health and metrics.")
    http_port: int = Field(0, ge=-1, le=65_535, description="Port of health and metrics; 0 any free one, -1 none.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least severe log line.")
    log_format: Literal["json", "console"] = Field("json", description="Log lines as JSON or for people.")

    @property
    def blob_location(self) -> str:
        return self.blobs_url or (self.data_dir.absolute() / "blobs").as_uri()
