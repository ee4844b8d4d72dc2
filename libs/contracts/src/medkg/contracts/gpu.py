"""What to do when a batch does not fit into a GPU's memory: halve it once, then fail."""

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from medkg.contracts.errors import GpuOutOfMemory

T = TypeVar("T")
R = TypeVar("R")


def halving(work: Callable[[Sequence[T]], Sequence[R]], batch: Sequence[T]) -> list[R]:
    """The results of ``work`` on a batch, in its order; if that runs out of memory, on its two halves.

    Raises:
        GpuOutOfMemory: a half does not fit either, or the batch has only one item.
    """
    try:
        return list(work(batch))
    except GpuOutOfMemory as error:
        first, second = _halves(batch, error)
    try:
        return [*work(first), *work(second)]
    except GpuOutOfMemory as error:
        raise _too_large(batch, error) from error


async def halving_async(work: Callable[[Sequence[T]], Awaitable[Sequence[R]]], batch: Sequence[T]) -> list[R]:
    """The same for a coroutine; one half after the other."""
    try:
        return list(await work(batch))
    except GpuOutOfMemory as error:
        first, second = _halves(batch, error)
    try:
        return [*await work(first), *await work(second)]
    except GpuOutOfMemory as error:
        raise _too_large(batch, error) from error


def _halves(batch: Sequence[T], error: GpuOutOfMemory) -> tuple[Sequence[T], Sequence[T]]:
    if len(batch) < 2:
        raise error
    middle = (len(batch) + 1) // 2
    return batch[:middle], batch[middle:]


def _too_large(batch: Sequence[T], error: GpuOutOfMemory) -> GpuOutOfMemory:
    return GpuOutOfMemory(f"working on {len(batch)} items: out of GPU memory, halved once, and again: {error.message}")
