"""Is there a GPU here? Asked of the NVIDIA driver itself: no framework has to be installed for the answer."""

import ctypes
from collections.abc import Callable
from typing import Any, Final

from medkg.contracts.errors import GpuNotAvailable

_DRIVER: Final = "libcuda.so.1"
_SUCCESS = 0

LoadDriver = Callable[[str], Any]


def gpu_count(load: LoadDriver = ctypes.CDLL) -> int:
    """How many CUDA devices this process may use; 0 without a driver, or with one that does not start."""
    try:
        driver = load(_DRIVER)
    except OSError:
        return 0
    count = ctypes.c_int(0)
    if driver.cuInit(0) != _SUCCESS or driver.cuDeviceGetCount(ctypes.byref(count)) != _SUCCESS:
        return 0
    return count.value


def require_gpu(what: str, instead: str, load: LoadDriver = ctypes.CDLL) -> None:
    """Raises GpuNotAvailable where there is none; ``instead`` says what the topology could name."""
    if gpu_count(load) == 0:
        raise GpuNotAvailable(
            f"opening {what}: no CUDA device is visible to this process (driver {_DRIVER}, CUDA_VISIBLE_DEVICES); "
            f"give it a GPU, or {instead}"
        )
