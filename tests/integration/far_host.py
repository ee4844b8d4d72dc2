"""A host behind a cable that can be pulled: a network namespace with a relay in it. Linux, as root, with iproute2."""

import asyncio
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from tests.chaos.network import Wire
from tests.servers.tied import start_tied

PORT = 5432
ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def far_host(target: Path, log: Path) -> Iterator[tuple[str, Callable[[], None]]]:
    """The address of a host that relays PORT to the Unix socket ``target``, and what pulls its cable.

    Nothing comes back from the host then, no refusal either. Skips where namespaces cannot be made; for root in CI that
    is a failure.
    """
    name = f"mk{secrets.token_hex(3)}"
    net = f"10.213.{secrets.randbelow(256)}"
    with ExitStack() as stack:
        try:
            ip("netns", "add", name)
            stack.callback(ip, "netns", "del", name)
            ip("link", "add", f"{name}a", "type", "veth", "peer", "name", f"{name}b", "netns", name)
            stack.callback(ip, "link", "del", f"{name}a")
        except (OSError, subprocess.CalledProcessError) as error:
            reason = f"no network namespaces (Linux, root, iproute2): {error}"
            pytest.fail(reason) if os.environ.get("CI") and os.geteuid() == 0 else pytest.skip(reason)
        ip("addr", "add", f"{net}.1/24", "dev", f"{name}a")
        ip("link", "set", f"{name}a", "up")
        ip("-n", name, "addr", "add", f"{net}.2/24", "dev", f"{name}b")
        ip("-n", name, "link", "set", f"{name}b", "up")
        command = [sys.executable, "-m", "tests.integration.far_host", f"{net}.2", str(target)]
        inside = [shutil.which("ip") or "ip", "netns", "exec", name, *command]
        relay = start_tied(inside, log=log, env=os.environ | {"PYTHONPATH": str(ROOT)})
        stack.callback(relay.wait)
        stack.callback(relay.kill)
        yield f"{net}.2", lambda: ip("-n", name, "link", "set", f"{name}b", "down")


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


async def relay(address: str, target: Path) -> None:
    with Wire((address, PORT), target):
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(relay(sys.argv[1], Path(sys.argv[2])))
