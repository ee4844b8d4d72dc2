"""How two accounts of the same thing become one: rules that do not care about order or repetition.

Each rule is a join of a semilattice (commutative, associative, idempotent) and is written twice from one declaration:
in Python, which merges the events of a batch, and in SQL, which merges the batch with what the table holds. ``ADD``
alone is not idempotent: it carries exact differences, which are computed from the state that a write has found.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import msgspec

Row = list[Any]
SEPARATOR = "\x1f"  # ASCII unit separator: in no text that is merged


class Rule(Enum):
    """How one column is merged."""

    KEY = "key"
    LEAST = "least"  # None is absent
    GREATEST = "greatest"  # None is absent; also for what never differs but may be missing ("" or 0)
    EITHER = "either"
    UNION = "union"  # a frozenset of words
    HIGHEST_BY_KEY = "highest_by_key"  # a dict of numbers
    ADD = "add"


@dataclass(frozen=True, slots=True)
class Field:
    """One column."""

    name: str
    pg_type: str
    rule: Rule


@dataclass(frozen=True, slots=True)
class Tuple:
    """Columns that belong together: the smallest (or, ``latest``, the greatest) tuple wins whole.

    The first column is None where the tuple is absent.
    """

    columns: tuple[tuple[str, str], ...]
    latest: bool = False


class MergedTable:
    """The merge of one table: rows are lists in the order of :attr:`columns`."""

    def __init__(self, name: str, fields: Sequence[Field | Tuple]) -> None:
        self.name = name
        self.columns: list[str] = []
        self._types: list[str] = []
        self._keys: list[str] = []
        self._sets: list[str] = []
        self._python: list[Callable[[Row, Row], None]] = []
        self._encoders: dict[int, Callable[[Any], str]] = {}
        for field in fields:
            self._add(field)

    def add_to(self, rows: dict[Any, Row], key: Any, row: Row) -> None:
        """Merge ``row`` into what ``rows`` holds under ``key``."""
        known = rows.get(key)
        if known is None:
            rows[key] = row
            return
        for merge in self._python:
            merge(known, row)

    def upsert(self, *, remember: Sequence[str] = ()) -> str:
        """The statement that merges columns, bound as ``:column`` (see :meth:`parameters`), into the table.

        ``remember`` are columns whose value before the write is kept as ``COLUMN_before``.
        """
        names = ", ".join(f'"{name}"' for name in self.columns)
        pairs = zip(self.columns, self._types, strict=True)
        arrays = ", ".join(
            _ARRAYS.get(kind, "CAST(:{name} AS {kind}[])").format(name=name, kind=kind) for name, kind in pairs
        )
        values = ", ".join(self._value(index) for index in range(len(self.columns)))
        sets = [*self._sets, *(f"{name}_before = old.{name}" for name in remember)]
        action = f"UPDATE SET {', '.join(sets)}" if sets else "NOTHING"
        return (
            f"INSERT INTO {self.name} AS old ({names}) SELECT {values} FROM unnest({arrays}) AS new ({names}) "  # noqa: S608  names from the declarations below
            f"ON CONFLICT ({', '.join(self._keys)}) DO {action}"
        )

    def parameters(self, rows: Iterable[Row]) -> dict[str, Any]:
        """The rows by column, sorted by key: every writer locks rows in the same order.

        Raises:
            ValueError: a text holds :data:`SEPARATOR`.
        """
        ordered = sorted(rows, key=lambda row: row[: len(self._keys)])
        columns: Iterator[Sequence[Any]] = zip(*ordered, strict=True)
        bound: dict[str, Any] = {}
        for index, (name, kind, column) in enumerate(zip(self.columns, self._types, columns, strict=True)):
            encode = self._encoders.get(index)
            values = [encode(value) for value in column] if encode else list(column)
            bound[name] = _WRITERS[kind](values) if kind in _WRITERS else values
        return bound

    def _value(self, index: int) -> str:
        name = f'new."{self.columns[index]}"'
        encoder = self._encoders.get(index)
        if encoder is _words:
            return f"string_to_array({name}, ' ')"
        return f"CAST({name} AS jsonb)" if encoder is _json else name

    def _add(self, field: Field | Tuple) -> None:
        at = len(self.columns)
        if isinstance(field, Tuple):
            names = [name for name, _ in field.columns]
            self.columns += names
            self._types += [kind for _, kind in field.columns]
            self._python.append(_tuple_merge(at, at + len(names), latest=field.latest))
            self._sets += _tuple_sets(names, latest=field.latest)
            return
        self.columns.append(field.name)
        self._types.append(field.pg_type)
        if field.rule is Rule.KEY:
            self._keys.append(field.name)
            return
        self._python.append(_PYTHON[field.rule](at))
        merged = _SQL[field.rule].format(old=f'old."{field.name}"', new=f'excluded."{field.name}"')
        self._sets.append(f'"{field.name}" = {merged}')
        if field.rule in _ENCODERS:
            self._encoders[at] = _ENCODERS[field.rule]


def _tuple_merge(start: int, end: int, *, latest: bool) -> Callable[[Row, Row], None]:
    def merge(old: Row, new: Row) -> None:
        if new[start] is None:
            return
        mine, other = old[start:end], new[start:end]
        if mine[0] is None or ((other > mine) if latest else (other < mine)):
            old[start:end] = other

    return merge


def _tuple_sets(names: list[str], *, latest: bool) -> list[str]:
    old = ", ".join(f'old."{name}"' for name in names)
    new = ", ".join(f'excluded."{name}"' for name in names)
    sign = ">" if latest else "<"
    first = names[0]
    wins = f'excluded."{first}" IS NOT NULL AND (old."{first}" IS NULL OR ({new}) {sign} ({old}))'
    return [f'"{name}" = CASE WHEN {wins} THEN excluded."{name}" ELSE old."{name}" END' for name in names]


def _least(at: int) -> Callable[[Row, Row], None]:
    def merge(old: Row, new: Row) -> None:
        value = new[at]
        if value is not None and (old[at] is None or value < old[at]):
            old[at] = value

    return merge


def _greatest(at: int) -> Callable[[Row, Row], None]:
    def merge(old: Row, new: Row) -> None:
        value = new[at]
        if value is not None and (old[at] is None or value > old[at]):
            old[at] = value

    return merge


def _either(at: int) -> Callable[[Row, Row], None]:
    def merge(old: Row, new: Row) -> None:
        old[at] = old[at] or new[at]

    return merge


def _union(at: int) -> Callable[[Row, Row], None]:
    def merge(old: Row, new: Row) -> None:
        if new[at]:
            old[at] = old[at] | new[at]

    return merge


def _highest_by_key(at: int) -> Callable[[Row, Row], None]:
    def merge(old: Row, new: Row) -> None:
        if new[at]:
            names = old[at].keys() | new[at].keys()
            old[at] = {name: max(old[at].get(name, 0), new[at].get(name, 0)) for name in names}

    return merge


def _add(at: int) -> Callable[[Row, Row], None]:
    def merge(old: Row, new: Row) -> None:
        old[at] += new[at]

    return merge


def _joined(texts: list[str]) -> str:
    whole = SEPARATOR + SEPARATOR.join(texts)
    if whole.count(SEPARATOR) != len(texts):
        raise ValueError("merging rows: a text holds the character that separates them")
    return whole


def _flags(values: list[bool]) -> str:
    return f"{{{','.join('t' if value else 'f' for value in values)}}}"


def _words(value: frozenset[str]) -> str:
    return " ".join(sorted(value))


def _json(value: dict[str, int]) -> str:
    return msgspec.json.encode(value).decode()


_PYTHON: dict[Rule, Callable[[int], Callable[[Row, Row], None]]] = {
    Rule.LEAST: _least,
    Rule.GREATEST: _greatest,
    Rule.EITHER: _either,
    Rule.UNION: _union,
    Rule.HIGHEST_BY_KEY: _highest_by_key,
    Rule.ADD: _add,
}
_SQL = {
    Rule.LEAST: "LEAST({old}, {new})",
    Rule.GREATEST: "GREATEST({old}, {new})",
    Rule.EITHER: "{old} OR {new}",
    Rule.UNION: (
        "CASE WHEN {new} <@ {old} THEN {old} "
        'ELSE ARRAY(SELECT DISTINCT word COLLATE "C" FROM unnest({old} || {new}) AS word ORDER BY 1) END'
    ),
    Rule.HIGHEST_BY_KEY: (
        "CASE WHEN {old} @> {new} THEN {old} ELSE (SELECT jsonb_object_agg(key, highest) FROM ("
        "SELECT key, max(CAST(value AS bigint)) AS highest FROM ("
        "SELECT * FROM jsonb_each_text({old}) UNION ALL SELECT * FROM jsonb_each_text({new})"
        ") AS both_sides GROUP BY key) AS merged) END"
    ),
    Rule.ADD: "{old} + {new}",
}
# The driver writes an array element by element; one text that PostgreSQL takes apart costs a tenth of that. What comes
# before the first separator is dropped: string_to_array makes no element of an empty text.
_ARRAYS = {
    "text": "(string_to_array(CAST(:{name} AS text), chr(31)))[2:]",
    "boolean": "CAST(CAST(:{name} AS text) AS boolean[])",
}
_WRITERS: dict[str, Callable[[list[Any]], str]] = {"text": _joined, "boolean": _flags}
_ENCODERS: dict[Rule, Callable[[Any], str]] = {Rule.UNION: _words, Rule.HIGHEST_BY_KEY: _json}
