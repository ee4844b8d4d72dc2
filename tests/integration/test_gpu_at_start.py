"""A service whose default implementation needs a GPU ends at once where there is none, with an exit code of its own."""

import os
import subprocess
import sys
from pathlib import Path

from medkg.local.embedded_broker import embedded_broker
from medkg.runtime.exits import Exit

PACKAGE = """
from contextlib import asynccontextmanager

from medkg.contracts.implementation import Options, StageImplementation
from medkg.contracts.stages import StageType


@asynccontextmanager
async def opened(options, host):
    raise AssertionError("opened without a GPU")
    yield


LOCAL = StageImplementation(
    stage_type=StageType.EMBED,
    name="local",
    version="1",
    options=Options,
    open=opened,
    needs_gpu=True,
    is_default=True,
)
"""


def with_gpu_package(folder: Path) -> Path:
    """A folder for PYTHONPATH with an embed package in the place of the installed one; its default needs a GPU."""
    (folder / "gpu_embedder.py").write_text(PACKAGE)
    facts = folder / "medkg_embed-9.0.dist-info"  # the first package of a name on the path is the one that counts
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: medkg-embed\nVersion: 9.0\n")
    (facts / "entry_points.txt").write_text("[medkg.stages]\nembed.local = gpu_embedder:LOCAL\n")
    return folder


def test_a_process_whose_default_needs_a_gpu_ends_at_once_where_there_is_none_and_says_so(tmp_path: Path) -> None:
    with embedded_broker() as bootstrap:
        environment = os.environ | {
            "PYTHONPATH": str(with_gpu_package(tmp_path)),
            "CUDA_VISIBLE_DEVICES": "",
            "MEDKG_KAFKA_BOOTSTRAP": bootstrap,
            "MEDKG_KAFKA_IS_IN_PROCESS": "true",
            "MEDKG_DATA_DIR": str(tmp_path / "data"),
        }
        ended = subprocess.run(
            [sys.executable, "-m", "medkg.embed"],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    said = ended.stdout + ended.stderr
    assert (ended.returncode, int(Exit.NO_GPU)) == (3, 3), said
    assert "opening embed.local: it needs a GPU, and there is no CUDA device here" in said
    assert "gpu_unavailable" in said
    assert "nothing falls back to the CPU" in said
    assert "Traceback" not in said
    assert "serving embed" not in said
