"""YAML as a tree that knows the line and column of everything in it.

Read is what JSON can hold, by the rules of YAML 1.2: ``yes`` and ``2026-11-21`` are text, only ``true`` and ``false``
are truth values. Anchors and aliases are read; tags, merge keys and keys that are not text are faults. Hostile text is
bounded in size, depth and number of nodes before anything is built from it.
"""

import re
from dataclasses import dataclass, field
from typing import Any, Never

import yaml

from medkg.contracts.errors import SourceFault

MAX_CHARACTERS = 262_144
MAX_DEPTH = 32
MAX_NODES = 20_000  # aliases counted with all that they stand for
MAX_NUMBER = 40  # characters

_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INTEGER = re.compile(r"[-+]?[0-9]+")
_REAL = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NOT_A_NUMBER = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_UNWRITABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")

Path = tuple[str | int, ...]


@dataclass(slots=True)
class Node:
    """A value and where it begins. ``keys`` are the places of a mapping's keys, ``text`` is a scalar as written."""

    value: "bool | int | float | str | list[Node] | dict[str, Node] | None"
    line: int
    column: int
    keys: dict[str, tuple[int, int]] = field(default_factory=dict)
    text: str = ""
    size: int = 1  # nodes, aliases expanded
    height: int = 1

    def plain(self) -> Any:
        """The value alone, as JSON knows it."""
        if isinstance(self.value, list):
            return [child.plain() for child in self.value]
        if isinstance(self.value, dict):
            return {key: child.plain() for key, child in self.value.items()}
        return self.value

    def child(self, part: str | int) -> "Node | None":
        """The node under a key or index, or None."""
        if isinstance(self.value, dict) and isinstance(part, str):
            return self.value.get(part)
        if isinstance(self.value, list) and isinstance(part, int) and 0 <= part < len(self.value):
            return self.value[part]
        return None


def read_yaml(text: str, file: str) -> tuple[Node | None, list[SourceFault]]:
    """The tree of one YAML document, and what is wrong with it. Without a tree there was no way to read on."""
    if len(text) > MAX_CHARACTERS:
        return None, [SourceFault(file, 1, 1, f"{len(text)} characters are over the limit of {MAX_CHARACTERS}")]
    builder = _Builder(file)
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            builder.take(event)
    except _CannotReadOn as stop:
        return None, [*builder.faults, stop.fault]
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        line, column = before.count("\n") + 1, error.position - before.rfind("\n")
        return None, [SourceFault(file, line, column, f"character U+{ord(text[error.position]):04X} is not allowed")]
    except yaml.MarkedYAMLError as error:
        return None, [_syntax_fault(file, error)]
    if builder.root is None:
        return None, [SourceFault(file, 1, 1, "there is nothing in it")]
    return builder.root, builder.faults


class _CannotReadOn(Exception):
    def __init__(self, fault: SourceFault) -> None:
        self.fault = fault


@dataclass(slots=True)
class _Open:
    """A list or mapping that is being read."""

    node: Node
    anchor: str | None
    key: str | None = None
    is_value_next: bool = False


class _Builder:
    """Makes nodes of parser events, without recursion."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.faults: list[SourceFault] = []
        self.root: Node | None = None
        self._open: list[_Open] = []
        self._anchors: dict[str, Node] = {}
        self._nodes = 0

    def take(self, event: yaml.Event) -> None:
        if isinstance(event, yaml.ScalarEvent):
            self._scalar(event)
        elif isinstance(event, yaml.AliasEvent):
            self._alias(event)
        elif isinstance(event, yaml.CollectionStartEvent):
            self._begin(event)
        elif isinstance(event, yaml.CollectionEndEvent):
            self._end()
        elif isinstance(event, yaml.DocumentStartEvent) and self.root is not None:
            self._stop(event, "a second document begins here", "a file holds one topology or one set of policies")

    def _scalar(self, event: yaml.ScalarEvent) -> None:
        self._check_tag(event)
        if self._is_key_next():
            self._key(event)
            return
        node = Node(self._value_of(event), *_place(event), text=event.value)
        self._count(event, 1)
        self._add(node, event.anchor)

    def _key(self, event: yaml.ScalarEvent) -> None:
        top = self._open[-1]
        top.is_value_next = True
        top.key = None
        key = self._value_of(event)
        if event.value == "<<" and event.style is None:
            self._fault(event, "merge keys (<<) are not read here", "write the fields out")
        elif not isinstance(key, str):
            self._fault(event, f"the key {event.value[:60]!r} is not text", "put it in quotes")
        elif key in top.node.keys:
            line, _ = top.node.keys[key]
            self._fault(event, f"{key[:60]!r} is given twice", f"the first is on line {line}")
        else:
            top.key = key
            top.node.keys[key] = _place(event)

    def _alias(self, event: yaml.AliasEvent) -> None:
        name = str(event.anchor)[:60]
        if any(frame.anchor == event.anchor for frame in self._open):
            self._stop(event, f"*{name} stands inside of what it stands for")
        node = self._anchors.get(event.anchor or "")
        if node is None:
            self._stop(event, f"nothing above is named &{name}")
        if self._is_key_next():
            self._stop(event, f"the alias *{name} cannot be a key", "write the key out")
        if len(self._open) + node.height > MAX_DEPTH:
            self._stop(event, f"nested deeper than {MAX_DEPTH} levels")
        self._count(event, node.size)
        self._add(node, None)

    def _begin(self, event: yaml.CollectionStartEvent) -> None:
        self._check_tag(event)
        if self._is_key_next():
            self._stop(event, "a list or mapping cannot be a key")
        if len(self._open) >= MAX_DEPTH:
            self._stop(event, f"nested deeper than {MAX_DEPTH} levels")
        self._count(event, 1)
        value: list[Node] | dict[str, Node] = {} if isinstance(event, yaml.MappingStartEvent) else []
        self._open.append(_Open(Node(value, *_place(event)), event.anchor))

    def _end(self) -> None:
        done = self._open.pop()
        self._add(done.node, done.anchor)

    def _add(self, node: Node, anchor: str | None) -> None:
        if anchor:
            self._anchors[anchor] = node
        if not self._open:
            self.root = node
            return
        top = self._open[-1]
        top.node.size += node.size
        top.node.height = max(top.node.height, node.height + 1)
        if isinstance(top.node.value, list):
            top.node.value.append(node)
        elif isinstance(top.node.value, dict):
            top.is_value_next = False
            if top.key is not None:
                top.node.value[top.key] = node

    def _is_key_next(self) -> bool:
        return bool(self._open) and isinstance(self._open[-1].node.value, dict) and not self._open[-1].is_value_next

    def _value_of(self, event: yaml.ScalarEvent) -> bool | int | float | str | None:
        text = event.value
        if _UNWRITABLE.search(text):
            self._fault(event, "text holds a control character or half of a surrogate pair")
            return ""
        if event.style is not None:
            return text
        if text in _NULL:
            return None
        if text in _BOOLEANS:
            return _BOOLEANS[text]
        return self._number_or_text(event, text)

    def _number_or_text(self, event: yaml.ScalarEvent, text: str) -> int | float | str:
        is_number = _REAL.fullmatch(text) is not None
        if _NOT_A_NUMBER.fullmatch(text) or (is_number and len(text) > MAX_NUMBER):
            self._fault(event, f"{text[:60]!r} is not a number that can be used here")
            return 0
        if not is_number:
            return text
        number = int(text) if _INTEGER.fullmatch(text) else float(text)
        if abs(number) > (2**63 if isinstance(number, int) else 1e300):  # what readers of JSON can be trusted with
            self._fault(event, f"{text!r} is too large")
            return 0
        return number

    def _check_tag(self, event: yaml.NodeEvent) -> None:
        tag = getattr(event, "tag", None)
        if tag is not None:
            self._fault(event, f"the tag {str(tag)[:60]!r} is not read here", "write the value without it")

    def _count(self, event: yaml.Event, nodes: int) -> None:
        self._nodes += nodes
        if self._nodes > MAX_NODES:
            self._stop(event, f"more than {MAX_NODES} values, aliases counted with what they stand for")

    def _fault(self, event: yaml.Event, message: str, hint: str = "") -> None:
        self.faults.append(SourceFault(self.file, *_place(event), message, hint))

    def _stop(self, event: yaml.Event, message: str, hint: str = "") -> Never:
        raise _CannotReadOn(SourceFault(self.file, *_place(event), message, hint))


def _place(event: yaml.Event) -> tuple[int, int]:
    mark = event.start_mark
    return (mark.line + 1, mark.column + 1) if mark else (1, 1)


def _syntax_fault(file: str, error: yaml.MarkedYAMLError) -> SourceFault:
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    context = f" {error.context}" if error.context else ""
    hint = "YAML indents with spaces" if "'\\t'" in (error.problem or "") else ""
    return SourceFault(file, line, column, f"not YAML:{context}{',' if context else ''} {error.problem}", hint)
