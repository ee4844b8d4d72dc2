"""Reads topologies and policies from YAML; names every fault at once with file, line and column. No I/O."""

import json
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from medkg.contracts.errors import PipelineConfigError, SourceFault
from medkg.contracts.stages import StageType
from medkg.contracts.topology import (
    Breaker,
    Checks,
    GateCondition,
    GateDefinition,
    Policies,
    Policy,
    StageDefinition,
    Topology,
    When,
)
from medkg.contracts.topology_graph import Finding, check_graph, did_you_mean
from medkg.contracts.topology_yaml import Node, Path, read_yaml

__all__ = ["SourceFault", "read_policies", "read_topology"]

MAX_LISTED = 100  # faults that a message lists; the error holds them all

_Model = TypeVar("_Model", bound=BaseModel)


def read_topology(text: str, source: str, policies: Policies) -> Topology:
    """The topology written in ``text``. ``source`` is the file's name, for people.

    Raises:
        PipelineConfigError: with every fault, in the order of the file.
    """
    return _read(Topology, text, source, lambda content: check_graph(content, policies))


def read_policies(text: str, source: str) -> Policies:
    """The policies written in ``text``. ``source`` is the file's name, for people.

    Raises:
        PipelineConfigError: with every fault, in the order of the file.
    """
    return _read(Policies, text, source, lambda _: [])


def _read(model: type[_Model], text: str, source: str, check: Callable[[dict[str, Any]], Iterable[Finding]]) -> _Model:
    root, faults = read_yaml(text, source)
    if root is None:
        raise _error(source, faults)
    content = root.plain()
    result: _Model | None = None
    if not isinstance(content, dict):
        faults.append(SourceFault(source, root.line, root.column, f"expected fields, found {_found(content)}"))
        raise _error(source, faults)
    try:
        # By way of JSON, because only there strict means: a list may be a tuple, but text is never a number.
        result = model.model_validate_json(json.dumps(content), strict=True)
    except ValidationError as error:
        details = error.errors(include_url=False)
        faults += _schema_faults(details, root, source)
    faults += [_placed(finding, root, source) for finding in check(content)]
    if faults or result is None:
        raise _error(source, faults)
    return result


def _error(source: str, faults: list[SourceFault]) -> PipelineConfigError:
    in_order = sorted(dict.fromkeys(faults))
    lines = [str(fault) for fault in in_order[:MAX_LISTED]]
    if len(in_order) > MAX_LISTED:
        lines.append(f"{source}: {len(in_order) - MAX_LISTED} more faults are not listed")
    return PipelineConfigError("\n".join(lines), faults=in_order)


def _placed(finding: Finding, root: Node, source: str) -> SourceFault:
    node, _ = _locate(root, finding.path)
    hint = finding.hint
    if finding.also is not None:
        hint = f"the first is on line {_locate(root, finding.also)[0].line}"
    return SourceFault(source, node.line, node.column, finding.message, hint)


# -- faults of the schema ----------------------------------------------------------------------------------------------

_SCALARS = ("str", "int", "float", "bool")
_MODELS: Mapping[str, type[BaseModel]] = MappingProxyType(
    {"when": When, "checks": Checks, "condition": GateCondition, "breaker": Breaker}
)


def _schema_faults(details: list[ErrorDetails], root: Node, source: str) -> list[SourceFault]:
    faults = []
    for detail in details:
        loc = detail["loc"]
        if detail["type"] == "duplicate_item":
            loc = (*loc, detail["ctx"]["index"])
        node, path = _locate(root, loc)
        if detail["type"] == "too_short" and node.value:
            continue  # only the valid stages are counted; each of the others has its own fault
        line, column = node.line, node.column
        if detail["type"] == "extra_forbidden" or loc[-1:] == ("[key]",):
            line, column = _key_place(root, path)
        message, hint = _described(detail, node, _fields_at(root, path))
        subject = _subject(root, path)
        inside = path[2 if subject else 0 :]
        if inside and detail["type"] not in ("missing", "duplicate_item", "extra_forbidden"):
            message = f"{'.'.join(map(str, inside))}: {message}"
        faults.append(SourceFault(source, line, column, f"{subject}: {message}" if subject else message, hint))
    return faults


def _locate(root: Node, loc: tuple[str | int, ...]) -> tuple[Node, Path]:
    """The node that a location leads to, and the way to it. What is not in the file (a missing field, the branch of a
    union) is passed over."""
    node, path = root, []
    for part in loc:
        child = node.child(part)
        if child is not None:
            node = child
            path.append(part)
    return node, tuple(path)


def _key_place(root: Node, path: Path) -> tuple[int, int]:
    parent, _ = _locate(root, path[:-1])
    node, _ = _locate(root, path)
    return parent.keys.get(str(path[-1]), (node.line, node.column)) if path else (node.line, node.column)


def _subject(root: Node, path: Path) -> str:
    """Whose fault it is: a stage or a policy by its name; empty at the top."""
    if len(path) < 2 or path[0] not in ("stages", "policies"):
        return ""
    if path[0] == "policies":
        return f"policy {str(path[1])[:80]!r}"
    name = _locate(root, path[:2])[0].child("name")
    is_named = name is not None and isinstance(name.value, str)
    return f"stage {name.value!r}"[:90] if name is not None and is_named else f"stage {int(path[1]) + 1}"


def _fields_at(root: Node, path: Path) -> list[str]:
    """The fields that are known where an unknown one stands."""
    inside = path[:-1]
    model: type[BaseModel] = Topology if root.child("policies") is None else Policies
    if inside and inside[-1] in _MODELS:
        model = _MODELS[str(inside[-1])]
    elif len(inside) == 2 and inside[0] == "policies":
        model = Policy
    elif len(inside) == 2:
        kind = _locate(root, inside)[0].child("type")
        is_gate = kind is not None and kind.value == StageType.GATE
        model = GateDefinition if is_gate else StageDefinition
    return [field.alias or name for name, field in model.model_fields.items()]


def _described(detail: ErrorDetails, node: Node, known_fields: list[str]) -> tuple[str, str]:
    """A fault in words, and a hint."""
    kind, context, given = detail["type"], detail.get("ctx", {}), detail["input"]
    last = str(detail["loc"][-1]) if detail["loc"] else ""
    message, hint = detail["msg"], ""
    if kind == "missing":
        message = f"{last!r} is missing"
    elif kind == "extra_forbidden":
        message, hint = f"unknown field {last[:80]!r}", did_you_mean(last, known_fields)
    elif kind == "union_tag_not_found":
        message = "'type' is missing" if node.child("type") is None else "'type' is not text"
        hint = f"it is one of {', '.join(StageType)}"
    elif kind == "union_tag_invalid":
        wanted = str(context["tag"])
        message, hint = f"unknown type {wanted[:80]!r}", did_you_mean(wanted, [each.value for each in StageType])
    elif last in _SCALARS and node.child(last) is None:
        message = f"expected text, a number, true or false, found {_found(given)}"
    elif kind == "string_type" and isinstance(given, int | float):
        message, hint = f"expected text, found {node.text}", f'put it in quotes: "{node.text}"'
    elif kind in _WORDS:
        message = _WORDS[kind].format(found=_found(given), **context)
    return message, hint


_WORDS: Mapping[str, str] = MappingProxyType(
    {
        "string_type": "expected text, found {found}",
        "int_type": "expected a whole number, found {found}",
        "int_from_float": "expected a whole number, found {found}",
        "float_type": "expected a number, found {found}",
        "bool_type": "expected true or false, found {found}",
        "tuple_type": "expected a list, found {found}",
        "list_type": "expected a list, found {found}",
        "dict_type": "expected fields, found {found}",
        "model_type": "expected fields, found {found}",
        "model_attributes_type": "expected fields, found {found}",
        "string_pattern_mismatch": "{found} does not match {pattern}",
        "enum": "{found} is not {expected}",
        "literal_error": "{found} is not {expected}",
        "too_short": "must have at least {min_length}",
        "too_long": "{actual_length} are more than the limit of {max_length}",
        "string_too_long": "longer than {max_length} characters",
        "greater_than": "must be more than {gt}, found {found}",
        "greater_than_equal": "must be at least {ge}, found {found}",
        "less_than": "must be less than {lt}, found {found}",
        "less_than_equal": "must be at most {le}, found {found}",
    }
)


def _found(value: object) -> str:
    if isinstance(value, dict):
        return "fields"
    if isinstance(value, list):
        return "a list"
    return "nothing" if value is None else json.dumps(value, ensure_ascii=False)[:80]
