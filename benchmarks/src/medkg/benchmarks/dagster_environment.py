"""A Python environment for the Dagster peer alone: its dependencies never meet ours, nor enter our lock or CI."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

REQUIREMENTS = Path(__file__).parent / "peers" / "dagster.txt"
_INSTALL_TIMEOUT_SECONDS = 600


def dagster_python() -> Path:
    """The interpreter of that environment; made by uv at the first call (40 packages, about a minute), found later.

    Raises:
        RuntimeError: it could not be made; the message ends with what uv said.
    """
    name = hashlib.sha256(REQUIREMENTS.read_bytes() + sys.version.encode()).hexdigest()[:12]
    folder = _cache_folder() / f"dagster-{name}"
    python, whole = folder / "bin" / "python", folder / "complete"
    if not whole.exists():
        print(f"    making an environment for dagster in {folder}", flush=True)
        _uv("venv", "--clear", "--python", sys.executable, str(folder))
        _uv("pip", "install", "--python", str(python), "--requirements", str(REQUIREMENTS))
        whole.touch()
    return python


def _cache_folder() -> Path:
    given = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(given) if given else Path.home() / ".cache") / "medkg"


def _uv(*arguments: str) -> None:
    beside = Path(sys.executable).with_name("uv")
    uv = str(beside) if beside.exists() else "uv"
    try:
        done = subprocess.run(
            [uv, *arguments], capture_output=True, text=True, timeout=_INSTALL_TIMEOUT_SECONDS, check=False
        )
    except (FileNotFoundError, subprocess.TimeoutExpired) as error:
        raise RuntimeError(f"making an environment for dagster with uv: {error}") from error
    if done.returncode != 0:
        raise RuntimeError(f"making an environment for dagster: uv {arguments[0]} failed: {done.stderr[-1500:]}")
