"""Tenants take turns."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medkg.runtime.fair_queue import FairQueue


def test_a_tenant_with_one_item_waits_for_one_of_each_other_tenant() -> None:
    queue: FairQueue[str] = FairQueue()
    for number in range(1_000):
        queue.push(b"large", f"large-{number}")
    queue.push(b"small", "small")

    assert [queue.pop(), queue.pop(), queue.pop()] == ["large-0", "small", "large-1"]


def test_an_empty_queue_says_so() -> None:
    with pytest.raises(IndexError):
        FairQueue().pop()


items = st.lists(st.tuples(st.sampled_from([b"a", b"b", b"c"]), st.integers()), max_size=40)


@given(items)
def test_every_item_comes_out_once_and_within_a_tenant_in_order(pushed: list[tuple[bytes, int]]) -> None:
    queue: FairQueue[tuple[bytes, int]] = FairQueue()
    for tenant, number in pushed:
        queue.push(tenant, (tenant, number))

    popped = [queue.pop() for _ in range(len(queue))]

    assert len(queue) == 0
    for tenant in (b"a", b"b", b"c"):
        assert [item for item in popped if item[0] == tenant] == [item for item in pushed if item[0] == tenant]


@given(items)
def test_of_two_tenants_that_wait_neither_is_served_twice_in_a_row(pushed: list[tuple[bytes, int]]) -> None:
    queue: FairQueue[bytes] = FairQueue()
    left: dict[bytes, int] = {}
    for tenant, _ in pushed:
        queue.push(tenant, tenant)
        left[tenant] = left.get(tenant, 0) + 1
    last = b""
    while queue:
        tenant = queue.pop()
        others = [name for name, count in left.items() if count and name != tenant]
        assert tenant != last or not others
        left[tenant] -= 1
        last = tenant


@given(items, st.sets(st.sampled_from([b"a", b"b", b"c"])))
def test_what_is_dropped_is_told_and_the_rest_stays(pushed: list[tuple[bytes, int]], kept: set[bytes]) -> None:
    queue: FairQueue[bytes] = FairQueue()
    for tenant, _ in pushed:
        queue.push(tenant, tenant)

    dropped = queue.keep(lambda tenant: tenant in kept)

    assert sorted(dropped) == sorted(tenant for tenant, _ in pushed if tenant not in kept)
    assert sorted(queue.pop() for _ in range(len(queue))) == sorted(tenant for tenant, _ in pushed if tenant in kept)
