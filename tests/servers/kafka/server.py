"""One Apache Kafka broker from its jars: a real one, to be stopped, killed and started again by tests."""

import os
import random
import signal
import socket
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

from ..tied import start_tied
from .configuration import server_properties
from .readiness import has_become_ready

_CLUSTER_ID = "bWVka2ctZm9yLXRlc3RzLg"  # 16 bytes in URL-safe base64, as StorageTool wants them
_JVM = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")  # a short-lived broker gains nothing from the rest
_HEAP = "-Xmx256m"
_START_TIMEOUT_SECONDS = 60
_STOP_TIMEOUT_SECONDS = 30
_PORT_ATTEMPTS = 5
_PORTS = (20_000, 32_000)  # Linux gives outgoing connections 32768 and up


class KafkaFailed(Exception):
    """The broker did not start; the message ends with its log."""


class KafkaServer:
    """A broker with its data in ``folder``. Usable as a context manager, which stops it at the end.

    ``proxied`` is (port, port of a proxy in front of it): it listens there too, for clients that come by the proxy.
    Acknowledged records survive :meth:`kill`; clients find the restarted broker at the same address.
    """

    def __init__(self, folder: Path, *, jars: Path, proxied: tuple[int, int] | None = None) -> None:
        self.folder = folder
        self._proxied = proxied
        self._classpath = f"{jars}/*"
        self._process: subprocess.Popen[bytes] | None = None
        self._port = 0

    @property
    def bootstrap(self) -> str:
        """``127.0.0.1:PORT``. Before the first start there is none."""
        if not self._port:
            raise RuntimeError("the Kafka server was never started")
        return f"127.0.0.1:{self._port}"

    @property
    def pid(self) -> int | None:
        """The broker's process, None while there is none."""
        return self._process.pid if self._process is not None and self.is_running() else None

    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self, port: int = 0) -> str:
        """Start on ``port`` (0: a free one) and return the bootstrap address when the broker answers.

        Raises:
            KafkaFailed: it ended or did not answer within a minute, or ``port`` is taken.
        """
        if self.is_running():
            raise RuntimeError(f"the Kafka server already runs at {self.bootstrap}")
        if port and is_taken(port):
            raise KafkaFailed(f"port {port} is already in use: choose another, or 0 for a free one")
        self.folder.mkdir(parents=True, exist_ok=True)
        log_start = 0
        for _ in range(_PORT_ATTEMPTS):
            self._configure(port or free_port(), free_port())
            log_start = self._log_size()
            if self._launch():
                return self.bootstrap
            # Between our finding a free port and the broker's using it, another process may have taken it.
            if "Address already in use" not in self._log_since(log_start):
                break
        raise self._failure("start", log_start)

    def stop(self) -> None:
        """End it in order (SIGTERM); all is on disk. Harmless when it does not run."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(_STOP_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
        self._process = None

    def kill(self) -> None:
        """``kill -9``: no goodbye, nothing flushed. Returns when the process is gone."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(_STOP_TIMEOUT_SECONDS)
        self._process = None

    def restart(self) -> str:
        """Start again at the same address with the same data, stopping it first if it runs.

        After :meth:`kill` clients are served again within about 5 s, after :meth:`stop` within 2 s.
        """
        address = self.bootstrap
        self.stop()
        log_start = self._log_size()
        if not self._launch():
            raise self._failure("restart", log_start)
        return address

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def _log(self) -> Path:
        return self.folder / "broker.log"

    @property
    def _properties(self) -> Path:
        return self.folder / "server.properties"

    def _configure(self, port: int, controller_port: int) -> None:
        self._port = port
        data = self.folder / "data"
        self._properties.write_text(server_properties(port, controller_port, data, self._proxied))
        if not (data / "meta.properties").exists():
            command = ["kafka.tools.StorageTool", "format", "-t", _CLUSTER_ID, "-c", str(self._properties)]
            done = subprocess.run(
                ["java", "-Xmx64m", *_JVM, "-cp", self._classpath, *command],
                capture_output=True,
                text=True,
                timeout=_START_TIMEOUT_SECONDS,
                check=False,
            )
            if done.returncode != 0:
                raise KafkaFailed(f"formatting {data} for Kafka failed:\n{(done.stdout + done.stderr)[-4000:]}")

    def _launch(self) -> bool:
        command = ["java", _HEAP, *_JVM, "-cp", self._classpath, "kafka.Kafka", str(self._properties)]
        self._process = start_tied(command, log=self._log, env=os.environ | {"LC_ALL": "C"})
        if has_become_ready(self.bootstrap, timeout_seconds=_START_TIMEOUT_SECONDS, is_running=self.is_running):
            return True
        self.kill()
        return False

    def _failure(self, what: str, log_start: int) -> KafkaFailed:
        end = self._log_since(log_start)[-4000:]
        return KafkaFailed(f"Kafka did not {what} at {self.bootstrap}; its log ends:\n{end}")

    def _log_size(self) -> int:
        return self._log.stat().st_size if self._log.exists() else 0

    def _log_since(self, start: int) -> str:
        return self._log.read_bytes()[start:].decode(errors="replace") if self._log.exists() else ""


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nothing uses at this moment; another process may take it before you do.

    Below the range that outgoing connections are given: while a killed broker is away, none of its clients may get its
    port, nor connect to itself there.
    """
    while is_taken(port := random.randrange(*_PORTS)):
        pass
    return port


def is_taken(port: int) -> bool:
    """Does something listen on this TCP port of 127.0.0.1?"""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False
