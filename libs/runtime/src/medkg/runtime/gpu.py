"""Is there a GPU here? Asked of NVIDIA's driver itself, without any of the libraries that would use one.

``CUDA_VISIBLE_DEVICES`` can hide all devices from CUDA: empty, ``-1`` or ``NoDevFiles`` (CUDA C++ Programming Guide,
"CUDA Environment Variables": only the devices before the first invalid index are visible).
"""

import ctypes
import os
from collections.abc import Mapping
from pathlib import Path

from medkg.contracts.errors import GpuNotAvailable
from medkg.contracts.implementation import StageImplementation

_NVML = "libnvidia-ml.so.1"  # comes with the driver, so also into every container that was given a GPU
_NO_DEVICES = {"", "-1", "NoDevFiles"}


def cuda_devices() -> int:
    """How many CUDA devices this process may see; 0 where there is no driver."""
    if _are_hidden(os.environ):
        return 0
    try:
        nvml = ctypes.CDLL(_NVML)
    except OSError:
        return sum(1 for _ in Path("/dev").glob("nvidia[0-9]*"))  # a container with devices but without the library
    if nvml.nvmlInit_v2() != 0:
        return 0
    try:
        count = ctypes.c_uint(0)
        return count.value if nvml.nvmlDeviceGetCount_v2(ctypes.byref(count)) == 0 else 0
    finally:
        nvml.nvmlShutdown()


def check_gpu(implementation: StageImplementation, *, devices: int | None = None) -> None:
    """Whether an implementation finds the GPU that it needs. One whose GPU is a server's asks that server itself.

    Raises:
        GpuNotAvailable: there is none.
    """
    if not implementation.needs_gpu or implementation.gpu_is_remote:
        return
    if (cuda_devices() if devices is None else devices) < 1:
        hidden = "; CUDA_VISIBLE_DEVICES hides them all" if _are_hidden(os.environ) else ""
        raise GpuNotAvailable(
            f"opening {implementation.stage_type.service}.{implementation.name}: it needs a GPU, and there is no CUDA "
            f"device here{hidden}. Run the service where one is, or name another implementation with `uses`; nothing "
            "falls back to the CPU by itself"
        )


def _are_hidden(environment: Mapping[str, str]) -> bool:
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    return visible is not None and visible.split(",")[0].strip() in _NO_DEVICES
