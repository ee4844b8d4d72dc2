"""Rows as the bytes of an object: MessagePack, arrays little-endian. Whatever is read is checked to fit together."""

from typing import Final

import msgspec
import numpy as np

from medkg.haystack.embedding import Matrix
from medkg.haystack.vectors.rows import ID_BYTES, Columns, Labels, Numbers

_FORMAT: Final = 1


class _Packed(msgspec.Struct, frozen=True):
    """Columns as they are stored: arrays are little-endian bytes."""

    format: int
    dimension: int
    write_ids: bytes
    written_at: bytes
    year: bytes
    retracted: bytes
    sources: dict[str, bytes]
    conditions: dict[str, bytes]
    phases: dict[str, bytes]
    owner: bytes
    row: bytes
    headings: dict[str, bytes]
    vectors: bytes = b""


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Packed)


def encode(columns: Columns, vectors: Matrix | None, dimension: int) -> bytes:
    """A delta, or without vectors what lies beside a FAISS index."""
    packed = _Packed(
        _FORMAT,
        dimension,
        columns.write_ids.tobytes(),
        columns.written_at.astype("<f8").tobytes(),
        columns.year.astype("<i4").tobytes(),
        columns.retracted.tobytes(),
        _bytes_of(columns.sources),
        _bytes_of(columns.conditions),
        _bytes_of(columns.phases),
        columns.owner.astype("<i4").tobytes(),
        columns.row.astype("<i4").tobytes(),
        _bytes_of(columns.headings),
        b"" if vectors is None else vectors.astype("<f4", copy=False).tobytes(),
    )
    return _encoder.encode(packed)


def decode(data: bytes, dimension: int) -> tuple[Columns, Matrix]:
    """What :func:`encode` made; the matrix has no rows where there are no vectors in it.

    Raises:
        ValueError: it is not that, its parts do not fit one another, or the dimension is another one.
    """
    try:
        packed = _decoder.decode(data)
    except msgspec.MsgspecError as error:
        raise ValueError(f"not the rows of vectors: {error}") from error
    if packed.format != _FORMAT or packed.dimension != dimension or dimension < 1:
        raise ValueError(f"format {packed.format} of dimension {packed.dimension}, wanted {_FORMAT} of {dimension}")
    writes, rows = len(packed.written_at) // 8, len(packed.owner) // 4
    columns = Columns(
        np.frombuffer(packed.write_ids, np.uint8).reshape(writes, ID_BYTES),
        np.frombuffer(packed.written_at, "<f8"),
        _numbers(packed.year, writes),
        np.frombuffer(packed.retracted, np.bool_),
        _labels(packed.sources, writes),
        _labels(packed.conditions, writes),
        _labels(packed.phases, writes),
        _numbers(packed.owner, rows),
        _numbers(packed.row, rows),
        _labels(packed.headings, rows),
    )
    if len(columns.retracted) != writes or (rows and not 0 <= columns.owner.min() <= columns.owner.max() < writes):
        raise ValueError("rows without a write")
    vectors: Matrix = np.frombuffer(packed.vectors, "<f4").reshape(-1, dimension)
    if len(vectors) not in (0, rows):
        raise ValueError(f"{len(vectors)} vectors for {rows} rows")
    return columns, vectors


def _bytes_of(labels: Labels) -> dict[str, bytes]:
    return {value: numbers.astype("<i4").tobytes() for value, numbers in labels.items()}


def _numbers(data: bytes, count: int) -> Numbers:
    numbers: Numbers = np.frombuffer(data, "<i4").reshape(count)
    return numbers


def _labels(packed: dict[str, bytes], count: int) -> Labels:
    labels = {value: np.frombuffer(data, "<i4") for value, data in packed.items()}
    if any(len(numbers) and not 0 <= numbers.min() <= numbers.max() < count for numbers in labels.values()):
        raise ValueError("labels of what is not there")
    return dict(labels)
