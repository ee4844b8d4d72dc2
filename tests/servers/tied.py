"""Starts processes that cannot outlive the one that started them, however that one ends.

Run as a script it is the launcher: it asks the kernel for SIGKILL at its parent's death (only Linux can do that) and
becomes the command. A launcher, because a ``preexec_fn`` is unsafe in a process with threads.
"""

import ctypes
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
_SIGKILL = 9


def start_tied(command: Sequence[str], *, log: Path, env: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
    """Start ``command``, its output appended to ``log``; killed when this process ends. Callable from any thread."""
    launcher = [sys.executable, "-I", str(Path(__file__).resolve()), str(os.getpid()), *command]

    def start() -> subprocess.Popen[bytes]:
        with log.open("ab") as output:
            return subprocess.Popen(
                launcher,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=env,
                start_new_session=True,  # Ctrl-C in a terminal is for the tests; they stop their servers in order
            )

    # The kernel's "parent" is the thread that started the process, so that thread must live as long as we do.
    return _starter().submit(start).result()


@cache
def _starter() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="servers")


def _become(parent: int, command: list[str]) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it died before we asked
            sys.exit(1)
    os.execvp(command[0], command)


if __name__ == "__main__":
    _become(int(sys.argv[1]), sys.argv[2:])
