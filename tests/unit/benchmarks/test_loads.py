import pytest
from hypothesis import given
from hypothesis import strategies as st

from medkg.benchmarks.loads import Load, arrivals, percentiles, slope


def test_documents_without_a_rate_arrive_at_once() -> None:
    assert set(Load(5).arrivals()) == {0.0}


def test_every_system_is_given_the_same_arrivals() -> None:
    assert Load(100, 40.0).arrivals() == Load(100, 40.0).arrivals()
    assert Load(50, 40.0).arrivals() == Load(100, 40.0).arrivals()[:50]


@given(count=st.integers(1, 300), per_second=st.floats(0.1, 5_000), is_even=st.booleans())
def test_arrivals_begin_at_once_and_never_go_back(count: int, per_second: float, is_even: bool) -> None:
    times = arrivals(count, per_second, is_even=is_even)
    assert len(times) == count
    assert times[0] == 0.0
    assert list(times) == sorted(times)


def test_arrivals_keep_their_rate() -> None:
    assert arrivals(20_000, 500.0)[-1] == pytest.approx(40.0, rel=0.05)


def test_even_arrivals_leave_the_same_gap() -> None:
    assert arrivals(4, 4.0, is_even=True) == (0.0, 0.25, 0.5, 0.75)


def test_a_load_is_waited_for_longer_than_it_takes_to_arrive() -> None:
    load = Load(1_000, 10.0)
    assert load.deadline_seconds > load.arrivals()[-1] + 60


def test_percentiles_are_latencies_that_occurred() -> None:
    assert percentiles([float(value) for value in range(1, 101)]) == {
        "p50": 50.0,
        "p95": 95.0,
        "p99": 99.0,
        "max": 100.0,
    }
    assert percentiles([7.0]) == {"p50": 7.0, "p95": 7.0, "p99": 7.0, "max": 7.0}
    assert percentiles([]) == {}


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=200))
def test_percentiles_ascend(latencies: list[float]) -> None:
    found = percentiles(latencies)
    assert found["p50"] <= found["p95"] <= found["p99"] <= found["max"]


def test_a_slope_is_that_of_the_straight_line() -> None:
    assert slope([(x, 3 * x + 1) for x in range(10)]) == pytest.approx(3)
    assert slope([(0, -900), *((x, 3 * x + 1) for x in range(1, 10)), (10, 40_000)]) == pytest.approx(3)
    assert slope([(1.0, 5.0), (1.0, 9.0)]) == 0.0
    assert slope([]) == 0.0
