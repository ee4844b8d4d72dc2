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


def test_who_comes_to_a_queue_full_of_another_s_work_is_the_next() -> None:
    queue: FairQueue[str] = FairQueue()
    for number in range(1_000):
        queue.push(b"large", f"large-{number}")
    assert [queue.pop(), queue.pop()] == ["large-0", "large-1"]
    queue.push(b"small", "small-0")
    assert queue.pop() == "small-0"

    queue.push(b"small", "small-1")

    assert [queue.pop(), queue.pop()] == ["large-2", "small-1"], "to come back at once is not to be the next again"


def test_a_tenant_of_whom_nothing_is_under_way_is_found_behind_others() -> None:
    queue: FairQueue[str] = FairQueue()
    for name in ("a", "a", "b", "c"):
        queue.push(name.encode(), name)

    assert queue.pop_of_another([b"a", None, b"b"]) == "c"
    assert queue.pop_of_another([b"a", b"b"]) is None
    assert [queue.pop() for _ in range(len(queue))] == ["a", "b", "a"]


def test_tenants_of_whom_nothing_waits_are_forgotten_in_the_end() -> None:
    queue: FairQueue[int] = FairQueue()
    for number in range(5_000):
        queue.push(str(number).encode(), number)
        queue.pop()

    assert len(queue._served) + len(queue._due) <= 1_001


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


@given(st.lists(st.sampled_from([b"", b"a", b"b", b"c"]), max_size=60))
def test_nobody_waits_for_two_items_of_another_whoever_comes_meanwhile(steps: list[bytes]) -> None:
    """Each step is an item of a tenant, or (empty) a turn."""
    queue: FairQueue[bytes] = FairQueue()
    left: dict[bytes, int] = {}
    seen: dict[bytes, dict[bytes, int]] = {}  # of a tenant that waits: how many of each other it has waited for
    for tenant in [*steps, *[b""] * len(steps)]:
        if tenant:
            queue.push(tenant, tenant)
            left[tenant] = left.get(tenant, 0) + 1
            seen.setdefault(tenant, {})
        elif queue:
            served = queue.pop()
            left[served] -= 1
            seen.pop(served)
            if left[served]:
                seen[served] = {}
            for waited in seen.values():
                waited[served] = waited.get(served, 0) + 1
            assert all(count <= 1 for name, waited in seen.items() for other, count in waited.items() if other != name)


@given(items, st.sets(st.sampled_from([b"a", b"b", b"c"])))
def test_what_is_dropped_is_told_and_the_rest_stays(pushed: list[tuple[bytes, int]], kept: set[bytes]) -> None:
    queue: FairQueue[bytes] = FairQueue()
    for tenant, _ in pushed:
        queue.push(tenant, tenant)

    dropped = queue.keep(lambda tenant: tenant in kept)

    assert sorted(dropped) == sorted(tenant for tenant, _ in pushed if tenant not in kept)
    assert sorted(queue.pop() for _ in range(len(queue))) == sorted(tenant for tenant, _ in pushed if tenant in kept)
