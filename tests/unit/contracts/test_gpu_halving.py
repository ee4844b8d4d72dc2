"""A batch that does not fit is halved once, then it fails."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medkg.contracts.errors import GpuOutOfMemory
from medkg.contracts.gpu import halving, halving_async


class Model:
    def __init__(self, fits: int) -> None:
        self.fits = fits
        self.batches: list[int] = []

    def __call__(self, batch: Sequence[int]) -> list[int]:
        self.batches.append(len(batch))
        if len(batch) > self.fits:
            raise GpuOutOfMemory(f"{len(batch)} do not fit")
        return [item * 2 for item in batch]

    async def later(self, batch: Sequence[int]) -> list[int]:
        return self(batch)


@given(st.lists(st.integers(), min_size=1, max_size=50), st.integers(1, 60))
async def test_the_result_is_that_of_the_whole_batch_or_a_failure_after_one_halving(
    items: list[int], fits: int
) -> None:
    whole, model, other = [item * 2 for item in items], Model(fits), Model(fits)
    if len(items) <= 2 * fits:
        assert halving(model, items) == whole
        assert await halving_async(other.later, items) == whole
    else:
        with pytest.raises(GpuOutOfMemory, match=f"working on {len(items)} items: out of GPU memory, halved once"):
            halving(model, items)
        with pytest.raises(GpuOutOfMemory):
            await halving_async(other.later, items)
    assert len(model.batches) <= 3
    assert model.batches == other.batches


def test_a_single_item_cannot_be_halved() -> None:
    model = Model(0)
    with pytest.raises(GpuOutOfMemory, match="1 do not fit"):
        halving(model, [1])
    assert model.batches == [1]
