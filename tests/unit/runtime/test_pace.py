"""A batch is followed by a rest, the longer the dearer it was, and never for long."""

import pytest

from medkg.runtime.pace import rest


@pytest.mark.parametrize(
    ("records", "worked", "rested"),
    [(1, 0.004, [0.008]), (99, 9.0, [0.02]), (100, 0.02, [0.02]), (5_000, 0.04, [0.04]), (5_000, 3.0, [0.05])],
)
async def test_a_large_batch_is_followed_by_a_rest_as_long_as_its_work_and_a_small_one_by_twice_that(
    records: int, worked: float, rested: list[float]
) -> None:
    seen: list[float] = []

    async def sleep(seconds: float) -> None:
        seen.append(seconds)

    await rest(records, worked, sleep)
    assert seen == rested
