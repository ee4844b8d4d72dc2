"""One OpenSearch node, to be stopped, killed and started again by tests."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Self

from ..kafka.server import free_port, is_taken
from ..tied import start_tied
from .distribution import java_home

_HEAP = "512m"
_START_TIMEOUT_SECONDS = 90
_STOP_TIMEOUT_SECONDS = 30
_PORT_ATTEMPTS = 5
_RUN_AS = "nobody"  # it refuses to run as root


class OpenSearchFailed(Exception):
    """The node did not start; the message ends with its log."""


class OpenSearchServer:
    """A node of its own, on loopback, without login. Usable as a context manager, which stops it at the end.

    ``folder`` must be one that other users may enter where this process runs as root; without one a temporary folder
    is made and removed. One that ``lasts`` compiles what it does often as well as Java can; without that it is up
    sooner, and answers about half as fast in the long run.
    """

    def __init__(self, distribution: Path, folder: Path | None = None, *, lasts: bool = False) -> None:
        self._distribution = distribution
        self._lasts = lasts
        self._is_ours = folder is None
        self.folder = folder or Path(tempfile.mkdtemp(prefix="medkg-opensearch-"))
        self._process: subprocess.Popen[bytes] | None = None
        self._port = 0

    @property
    def url(self) -> str:
        """``http://127.0.0.1:PORT``. Before the first start there is none."""
        if not self._port:
            raise RuntimeError("the OpenSearch server was never started")
        return f"http://127.0.0.1:{self._port}"

    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self, port: int = 0) -> str:
        """Start on ``port`` (0: a free one) and return the URL when the node answers.

        Raises:
            OpenSearchFailed: it ended or did not answer in time, or ``port`` is taken.
        """
        if port and is_taken(port):
            raise OpenSearchFailed(f"port {port} is already in use: choose another, or 0 for a free one")
        for _ in range(_PORT_ATTEMPTS):
            self._prepare(port or free_port(), free_port())
            if self._launch():
                return self.url
            if port or "BindHttpException" not in self._log_end():
                break
        raise OpenSearchFailed(f"OpenSearch did not start; its log ends:\n{self._log_end()}")

    def restart(self) -> str:
        """Start again at the same address with the same data, stopping it first if it runs."""
        self.stop()
        if not self._launch():
            raise OpenSearchFailed(f"OpenSearch did not restart; its log ends:\n{self._log_end()}")
        return self.url

    def stop(self) -> None:
        """End it in order (SIGTERM). Harmless when it does not run."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(_STOP_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
        self._process = None

    def kill(self) -> None:
        """``kill -9``: no goodbye, nothing flushed."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait(_STOP_TIMEOUT_SECONDS)
            self._process = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        if self._is_ours:
            shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def _node(self) -> Path:
        return self.folder / "node"

    @property
    def _log(self) -> Path:
        return self.folder / "node.log"

    def _prepare(self, port: int, transport_port: int) -> None:
        self._port = port
        if not self._node.exists():
            shutil.copytree(self._distribution, self._node)
        (self.folder / "tmp").mkdir(exist_ok=True)
        settings = {
            "cluster.name": "medkg-tests",
            "node.name": "one",
            "network.host": "127.0.0.1",
            "http.port": port,
            "transport.port": transport_port,
            "discovery.type": "single-node",
            # a nearly full disk would keep new indexes from being assigned
            "cluster.routing.allocation.disk.threshold_enabled": "false",
        }
        text = "".join(f"{name}: {value}\n" for name, value in settings.items())
        (self._node / "config" / "opensearch.yml").write_text(text)
        if os.geteuid() == 0:
            self._hand_over()

    def _hand_over(self) -> None:
        user = pwd.getpwnam(_RUN_AS)
        self.folder.chmod(0o755)
        for path in (self.folder, *self.folder.rglob("*")):
            os.chown(path, user.pw_uid, user.pw_gid, follow_symlinks=False)

    def _launch(self) -> bool:
        command = [str(self._node / "bin" / "opensearch")]
        if os.geteuid() == 0:
            user = pwd.getpwnam(_RUN_AS)
            who = ["--reuid", str(user.pw_uid), "--regid", str(user.pw_gid), "--clear-groups"]
            # a process that changes its user is no longer killed with its parent unless it is asked again
            command = ["setpriv", *who, "--pdeathsig", "KILL", *command]
        options = f"-Xms{_HEAP} -Xmx{_HEAP} -XX:-AlwaysPreTouch -XX:-UsePerfData"
        if not self._lasts:
            options += " -XX:TieredStopAtLevel=1"
        env = os.environ | {
            "OPENSEARCH_JAVA_HOME": str(java_home()),
            "OPENSEARCH_JAVA_OPTS": options,
            "OPENSEARCH_TMPDIR": str(self.folder / "tmp"),
            "HOME": str(self._node),
            "LC_ALL": "C",
        }
        self._process = start_tied(command, log=self._log, env=env)
        deadline = time.monotonic() + _START_TIMEOUT_SECONDS
        while time.monotonic() < deadline and self.is_running():
            if answers(self.url):
                return True
            time.sleep(0.1)
        self.kill()
        return False

    def _log_end(self) -> str:
        return self._log.read_bytes()[-4_000:].decode(errors="replace") if self._log.exists() else ""


def answers(url: str) -> bool:
    """Is there an OpenSearch at this URL that can be used?"""
    try:
        with urllib.request.urlopen(f"{url}/_cluster/health?wait_for_status=yellow&timeout=1s", timeout=3) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False
