"""The offset window: commits never pass something unfinished."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from medkg.runtime.window import OffsetWindow


def test_out_of_order_finishes_commit_the_contiguous_prefix_only() -> None:
    window = OffsetWindow()
    for offset in (10, 11, 12):
        window.take(offset)
        window.begin()

    assert not window.finish(12)
    assert window.committable is None
    assert window.finish(10)
    assert window.committable == 11
    assert window.finish(11)
    assert window.committable == 13


def test_gaps_between_offsets_do_not_hold_the_prefix_up() -> None:
    window = OffsetWindow()
    for offset in (3, 7, 100):
        window.take(offset)
        window.begin()
        window.finish(offset)

    assert window.committable == 101


def test_an_offset_that_goes_backwards_is_refused() -> None:
    window = OffsetWindow()
    window.take(5)
    with pytest.raises(ValueError, match="offset 4 taken after 5"):
        window.take(4)


class WindowMachine(RuleBasedStateMachine):
    """Against a model that remembers everything: what can be committed is exactly the finished prefix."""

    def __init__(self) -> None:
        super().__init__()
        self.window = OffsetWindow()
        self.taken: list[int] = []
        self.begun: set[int] = set()
        self.finished: set[int] = set()

    @rule(step=st.integers(min_value=1, max_value=5))
    def take(self, step: int) -> None:
        offset = (self.taken[-1] if self.taken else -1) + step
        self.window.take(offset)
        self.taken.append(offset)

    @rule(data=st.data())
    def begin_and_finish(self, data: st.DataObject) -> None:
        open_offsets = [offset for offset in self.taken if offset not in self.finished]
        if open_offsets:
            offset = data.draw(st.sampled_from(open_offsets))
            self.window.begin()
            self.window.finish(offset)
            self.finished.add(offset)

    @invariant()
    def commits_exactly_the_finished_prefix(self) -> None:
        prefix = None
        for offset in self.taken:
            if offset not in self.finished:
                break
            prefix = offset + 1
        assert self.window.committable == prefix
        assert self.window.running == 0
        assert len(self.window) == sum(1 for offset in self.taken if prefix is None or offset >= prefix)


TestWindowMachine = WindowMachine.TestCase


@given(st.permutations(list(range(20))))
def test_any_order_of_finishing_ends_with_everything_committable(order: list[int]) -> None:
    window = OffsetWindow()
    for offset in range(20):
        window.take(offset)
        window.begin()
    for offset in order:
        window.finish(offset)

    assert window.committable == 20
    assert len(window) == 0
