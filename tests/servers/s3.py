"""An S3 server for the suites: moto's, in an environment of its own, so that nothing of it is among our dependencies.

It keeps everything in memory and does not check signatures: what it is asked for is conditional writes, listings and
uploads in parts. ``python -m tests.servers.s3`` only fetches it; later starts need no network.
"""

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Self

from .kafka.server import free_port
from .tied import start_tied

MOTO = "moto[s3,server]==5.2.5"
_FETCH_TIMEOUT_SECONDS = 300
_START_TIMEOUT_SECONDS = 60


class S3Unavailable(Exception):
    """No S3 server can be started on this machine; the message says what would change that."""


def fetch() -> str:
    """The interpreter that has it; fetched at the first call (30 MB), found by all later ones.

    Raises:
        S3Unavailable: it could not be fetched.
    """
    uv = Path(sys.executable).with_name("uv")
    asked = "import sys; print(sys.executable)"
    command = [str(uv), "tool", "run", "--quiet", "--python", sys.executable, "--from", MOTO, "python", "-c", asked]
    try:
        answer = subprocess.run(command, check=True, capture_output=True, text=True, timeout=_FETCH_TIMEOUT_SECONDS)
    except (OSError, subprocess.SubprocessError) as error:
        raise S3Unavailable(f"{MOTO} could not be fetched with {uv}: {error}") from error
    return answer.stdout.strip()


class S3Server:
    """Loopback, any credentials. Usable as a context manager, which stops it at the end."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self.url = ""

    def start(self) -> str:
        """Start it and return its URL when it answers.

        Raises:
            S3Unavailable: it could not be fetched, or does not answer in time.
        """
        python = fetch()
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        command = [python, "-m", "moto.server", "--host", "127.0.0.1", "--port", str(port)]
        self._process = start_tied(command, log=Path(os.devnull))
        give_up_at = time.monotonic() + _START_TIMEOUT_SECONDS
        while time.monotonic() < give_up_at:
            try:
                with urllib.request.urlopen(f"{self.url}/moto-api/", timeout=5):
                    return self.url
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                time.sleep(0.1)
        self.stop()
        raise S3Unavailable(f"{MOTO} does not answer at {self.url}")

    def stop(self) -> None:
        """End it. Harmless when it does not run."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(30)
            self._process = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


if __name__ == "__main__":
    print(f"{MOTO} is in {fetch()}")
