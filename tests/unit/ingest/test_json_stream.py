"""The elements of an array are found wherever the reads happen to cut the file, and in linear time."""

import io
import json
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medkg.contracts.errors import PayloadMalformedError
from medkg.ingest.files import json_stream
from medkg.ingest.files.json_stream import Element, array_start, elements

NO_BOUND = 10**9
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


def read(data: bytes, offset: int = 0, index: int = 0, max_bytes: int = NO_BOUND) -> Iterator[Element]:
    start = array_start(data[: json_stream.HEAD_BYTES])
    assert start is not None
    return elements(io.BytesIO(data), start, max(offset, start.offset), index, max_bytes)


@pytest.fixture(params=[1, 2, 7, 262_144])
def chunk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    size: int = request.param
    monkeypatch.setattr(json_stream, "_CHUNK_BYTES", size)
    return size


@given(values=st.lists(VALUES, max_size=5), indent=st.sampled_from([None, 0, 2]), is_ascii=st.booleans())
def test_every_element_of_any_array_is_found_as_it_stands(
    values: list[object], indent: int | None, is_ascii: bool
) -> None:
    data = json.dumps(values, indent=indent, ensure_ascii=is_ascii).encode("utf-8", "surrogatepass")
    assert [json.loads(e.data.decode("utf-8", "surrogatepass")) for e in read(data)] == values


@given(values=st.lists(VALUES, min_size=1, max_size=5))
def test_reading_on_behind_any_element_gives_the_rest(values: list[object]) -> None:
    data = json.dumps({"totalCount": 3, "studies": values, "nextPageToken": "x"}).encode()
    whole = list(read(data))
    for number, element in enumerate(whole, 1):
        assert list(read(data, element.end, element.index + 1)) == whole[number:]


def test_no_cut_of_the_reads_changes_what_is_found(chunk: int) -> None:
    values = [{"a": 'quote \\" and \\\\ backslash ] }'}, "]", [[1, 2], {}], 17, "\\", "", -1.5e3, None, "ü漢"]
    data = (" \n" + json.dumps(values, ensure_ascii=False).replace(", ", " ,\n\t ") + " \n").encode()
    assert [json.loads(e.data) for e in read(data)] == values


def test_an_element_over_the_bound_is_passed_over_and_the_next_is_read(chunk: int) -> None:
    values = [{"a": 1}, {"long": 'x"] \\' * 200}, {"b": 2}]
    data = json.dumps(values).encode()
    found = list(read(data, max_bytes=100))
    assert [e.fault is None for e in found] == [True, False, True]
    assert json.loads(found[2].data) == values[2]
    assert found[1].data == b""


@pytest.mark.parametrize(
    "data",
    [
        b'[{"a":1}, {"b":2',
        b'[{"a":1}, {"b":"never closed',
        b'[{"a":1}',
        b'[{"a":1},',
        b'[{"a":1},]',
        b'[{"a":1} {"b":2}]',
        b'[{"a":1}}',
        b'[{"a":1}] trailing',
        b'{"studies":[{"a":1}], "nextPageToken":"x"',
        b'{"studies":[{"a":1}]} {}',
    ],
)
def test_what_stands_before_a_break_is_read_and_the_break_is_named(data: bytes) -> None:
    found: list[bytes] = []
    with pytest.raises(PayloadMalformedError, match="at byte"):
        found.extend(element.data for element in read(data))  # keeps what came before the error
    assert found[0] == b'{"a":1}'


def test_only_an_array_or_a_search_page_is_read_as_a_stream() -> None:
    assert array_start(b'{"protocolSection": {"studies": [1]}}') is None
    assert array_start(b' {"totalCount": 4, "nextPageToken": "a", "studies" : [') is not None
    assert array_start(b'"studies": [') is None


def test_the_work_grows_with_the_bytes_and_not_with_their_square(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reads are counted, not seconds: each byte of a record that outgrows many chunks is fetched once, and few reads
    means that the buffer, which is copied for each, has grown by doubling."""
    monkeypatch.setattr(json_stream, "_CHUNK_BYTES", 64)
    record = json.dumps({"text": "a\\b" * 600_000}).encode()
    file = _Counting(b"[" + record + b"," + record + b"]")
    start = array_start(b"[")
    assert start is not None
    assert len(list(elements(file, start, 1, 0, NO_BOUND))) == 2
    assert file.fetched <= 2 * len(record) + 3
    assert file.reads < 60


def test_offsets_grow_and_lie_within_the_file() -> None:
    data = json.dumps(list(range(50))).encode()
    ends = [e.end for e in read(data)]
    assert all(a < b for a, b in pairwise(ends))
    assert ends[-1] < len(data)


class _Counting(io.BytesIO):
    fetched = 0
    reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self.reads += 1
        data = super().read(size)
        self.fetched += len(data)
        return data
