"""The elements of a JSON array, one after the other, without reading the file as a whole.

Only the extent of an element is found here (strings and brackets); whether it is JSON is for its reader to say. The
cost is linear in the bytes between the offset asked for and the last element taken.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple

from medkg.contracts.errors import PayloadMalformedError, PayloadTooLargeError

HEAD_BYTES = 65_536  # the members before the array of a search page are two short ones
_CHUNK_BYTES = 262_144
_SPACE = b" \t\n\r"

# Everything from a quote to the closing one (or to the end of what is there), else one bracket.
# Group 1 is the closing quote: a trailing `\"` is none.
_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+("?)|[\[\]{}]', re.DOTALL)
_REST_OF_STRING = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+("?)', re.DOTALL)
_SCALAR = re.compile(rb'[^\s,\[\]{}"]*+')

_MEMBER = rb'"[^"\\]{0,100}"\s*:\s*(?:"[^"\\]{0,4096}"|-?[0-9]{1,20}|true|false|null)'
_ARRAY_START = re.compile(rb"\s*\[")
_PAGE_START = re.compile(rb"\s*\{\s*(?:" + _MEMBER + rb'\s*,\s*){0,8}"studies"\s*:\s*\[')
_PAGE_END = re.compile(rb"(?:\s*,\s*" + _MEMBER + rb"){0,8}\s*\}\s*")
_TAIL_BYTES = 65_536


class ArrayStart(NamedTuple):
    """Where the elements of an array begin. ``pointer`` is the JSON Pointer of the array in its file."""

    offset: int
    pointer: str


@dataclass(frozen=True, slots=True)
class Element:
    """One element: its bytes, or why they are not given, and the offset behind it."""

    index: int
    end: int
    data: bytes
    fault: PayloadTooLargeError | None = None


def array_start(head: bytes) -> ArrayStart | None:
    """The array of a file that is an array, or a search page with its studies; None for every other file."""
    if found := _ARRAY_START.match(head):
        return ArrayStart(found.end(), "")
    if found := _PAGE_START.match(head):
        return ArrayStart(found.end(), "/studies")
    return None


def elements(file: BinaryIO, start: ArrayStart, offset: int, index: int, max_bytes: int) -> Iterator[Element]:
    """The elements from the one with ``index`` on; ``offset`` is where the one before it ends.

    An element over ``max_bytes`` is passed over, and given with its fault.

    Raises:
        PayloadMalformedError: the array breaks off or breaks its form; what came before stands.
    """
    window = _Window(file, offset)
    while True:
        at = window.skip_space()
        mark = window.byte()
        if mark == b"]":
            window.advance(1)
            _check_tail(window, start)
            return
        if index > 0:
            if mark != b",":
                raise _broken(at, "expected ',' or ']'", mark)
            window.advance(1)
            at = window.skip_space()
            mark = window.byte()
        if mark in (b"", b",", b"]", b"}", b":"):
            raise _broken(at, "expected an element", mark)
        data = _take_value(window, max_bytes)
        fault = None if data is not None else PayloadTooLargeError(f"a record at byte {at} is over {max_bytes} bytes")
        yield Element(index, window.offset, data or b"", fault)
        index += 1


class _Window:
    """A file from an offset on, as a buffer that only holds what is being looked at."""

    def __init__(self, file: BinaryIO, offset: int) -> None:
        self._file = file
        self._start = offset  # of the buffer in the file
        self.buffer = b""
        self.at = 0  # in the buffer
        file.seek(offset)

    @property
    def offset(self) -> int:
        return self._start + self.at

    def advance(self, count: int) -> None:
        self.at += count

    def drop(self) -> None:
        """Forget what lies before the place looked at."""
        self._start += self.at
        self.buffer = self.buffer[self.at :]
        self.at = 0

    def more(self) -> bool:
        """Read on, as much again as is held (so that growing stays linear); false at the end of the file."""
        data = self._file.read(max(_CHUNK_BYTES, len(self.buffer)))
        self.buffer += data
        return bool(data)

    def byte(self) -> bytes:
        if self.at >= len(self.buffer) and not self.more():
            return b""
        return self.buffer[self.at : self.at + 1]

    def skip_space(self) -> int:
        """Go to the next byte that is no white space; its offset."""
        while True:
            rest = self.buffer[self.at : self.at + 1024]
            stripped = rest.lstrip(_SPACE)
            self.at += len(rest) - len(stripped)
            if stripped:
                return self.offset
            if self.at >= len(self.buffer):
                self.drop()
                if not self.more():
                    return self.offset


def _take_value(window: _Window, max_bytes: int) -> bytes | None:
    """The bytes of the value that begins here, None where it is over the bound; the window is behind it afterwards.

    Raises:
        PayloadMalformedError: the file ends within the value.
    """
    window.drop()
    begin = window.offset
    if window.byte() not in (b"{", b"[", b'"'):
        return _take_scalar(window, max_bytes)
    depth, is_in_string, is_kept = 0, False, True
    while True:
        found = (_REST_OF_STRING if is_in_string else _TOKEN).search(window.buffer, window.at)
        if found is None:
            window.at = len(window.buffer)
        else:
            closing = found.group(1)
            if closing is None:
                depth += 1 if found.group() in b"{[" else -1
            window.at, is_in_string = found.end(), closing == b""
            if not is_in_string and depth == 0:
                break
            if not is_in_string:
                continue
        is_kept = is_kept and window.offset - begin <= max_bytes
        if not is_kept:
            window.drop()
        if not window.more():
            raise _broken(window.offset, f"a record that begins at byte {begin} does not end", b"")
    size = window.offset - begin
    if not is_kept or size > max_bytes:
        return None
    return window.buffer[window.at - size : window.at]


def _take_scalar(window: _Window, max_bytes: int) -> bytes | None:
    begin = window.offset
    while True:
        found = _SCALAR.match(window.buffer, window.at)
        end = found.end() if found is not None else window.at
        if end < len(window.buffer) or not window.more():
            break
        if len(window.buffer) > max_bytes:
            raise _broken(begin, "a number or word that does not end", b"")
    if end == window.at:
        raise _broken(begin, "expected an element", window.byte())
    data = window.buffer[window.at : end]
    window.at = end
    return data


def _check_tail(window: _Window, start: ArrayStart) -> None:
    """Behind the array there is nothing, or the rest of the search page."""
    at = window.offset
    window.drop()
    while len(window.buffer) <= _TAIL_BYTES and window.more():
        pass
    rest = window.buffer
    is_whole = _PAGE_END.fullmatch(rest) is not None if start.pointer else not rest.strip(_SPACE)
    if not is_whole or len(rest) > _TAIL_BYTES:
        raise _broken(at, "expected the end of the file behind the array", rest.lstrip(_SPACE)[:1])


def _broken(offset: int, expected: str, found: bytes) -> PayloadMalformedError:
    seen = repr(found.decode("latin-1")) if found else "the end of the file"
    return PayloadMalformedError(f"at byte {offset}: {expected}, found {seen}; nothing behind that place was read")
