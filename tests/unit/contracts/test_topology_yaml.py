"""Hostile and unusual YAML: refused with a place, and within bounds."""

import time

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from medkg.contracts.topology_yaml import MAX_CHARACTERS, MAX_DEPTH, MAX_NODES, read_yaml

CANNOT_BE_READ = {
    "nothing": ("", "f:1:1: there is nothing in it"),
    "bad syntax": ("a: b: c", "f:1:5: not YAML: mapping values are not allowed here"),
    "an unknown alias": ("a: *x", "f:1:4: nothing above is named &x"),
    "an alias of itself": ("a: &x [*x]", "f:1:8: *x stands inside of what it stands for"),
    "an alias of a parent": ("a: &x {b: {c: *x}}", "f:1:15: *x stands inside of what it stands for"),
    "two documents": (
        "a: 1\n---\nb: 2",
        "f:2:1: a second document begins here; a file holds one topology or one set of policies",
    ),
    "a control character": ("a: 1\nb: \x01", "f:2:4: character U+0001 is not allowed"),
    "a list as a key": ("? [a]\n: b", "f:1:3: a list or mapping cannot be a key"),
    "an alias as a key": ("a: &x b\n*x : c", "f:2:1: the alias *x cannot be a key; write the key out"),
    "too deep": ("[" * 40, f"f:1:{MAX_DEPTH + 1}: nested deeper than {MAX_DEPTH} levels"),
    "too long": (
        " " * (MAX_CHARACTERS + 1),
        f"f:1:1: {MAX_CHARACTERS + 1} characters are over the limit of {MAX_CHARACTERS}",
    ),
}


@pytest.mark.parametrize(("text", "expected"), CANNOT_BE_READ.values(), ids=CANNOT_BE_READ.keys())
def test_what_cannot_be_read_has_one_fault(text: str, expected: str) -> None:
    root, faults = read_yaml(text, "f")

    assert root is None
    assert [str(fault) for fault in faults] == [expected]


def test_a_tab_is_explained() -> None:
    _, faults = read_yaml("a:\n\t- x", "f")

    assert (faults[0].line, faults[0].column) == (2, 1)
    assert faults[0].hint == "YAML indents with spaces"


READ_ON = {
    "a repeated key": ("a: 1\nb: 2\na: 3", "f:3:1: 'a' is given twice; the first is on line 1", {"a": 1, "b": 2}),
    "a key that is not text": ("1: x\nb: 2", "f:1:1: the key '1' is not text; put it in quotes", {"b": 2}),
    "a merge key": ("<<: {a: 1}\nb: 2", "f:1:1: merge keys (<<) are not read here; write the fields out", {"b": 2}),
    "a tag": (
        "a: !!int '3'",
        "f:1:4: the tag 'tag:yaml.org,2002:int' is not read here; write the value without it",
        {"a": "3"},
    ),
    "infinity": ("a: .inf", "f:1:4: '.inf' is not a number that can be used here", {"a": 0}),
    "a huge number": ("a: 1e999", "f:1:4: '1e999' is too large", {"a": 0}),
    "a number over 64 bits": ("a: 99999999999999999999", "f:1:4: '99999999999999999999' is too large", {"a": 0}),
    "a number of many digits": (
        "a: " + "9" * 5_000,
        f"f:1:4: '{'9' * 60}' is not a number that can be used here",
        {"a": 0},
    ),
    "half a surrogate pair": (
        'a: "\\ud800"',
        "f:1:4: text holds a control character or half of a surrogate pair",
        {"a": ""},
    ),
    "an escaped NUL": ('a: "\\0"', "f:1:4: text holds a control character or half of a surrogate pair", {"a": ""}),
}


@pytest.mark.parametrize(("text", "expected", "content"), READ_ON.values(), ids=READ_ON.keys())
def test_after_a_lesser_fault_the_rest_is_read(text: str, expected: str, content: object) -> None:
    root, faults = read_yaml(text, "f")

    assert [str(fault) for fault in faults] == [expected]
    assert root is not None
    assert root.plain() == content


def test_scalars_follow_yaml_1_2() -> None:
    root, faults = read_yaml("[yes, no, on, 2026-11-21, 010, 1_000, true, null, ~, 1.5, -3, 1e3, '7', 0x1f]", "f")

    assert not faults
    assert root is not None
    assert root.plain() == [
        "yes", "no", "on", "2026-11-21", 10, "1_000", True, None, None, 1.5, -3, 1000.0, "7", "0x1f",
    ]  # fmt: skip


def test_anchors_stand_for_what_they_name() -> None:
    root, faults = read_yaml("a: &x {b: [1, 2]}\nc: *x\nd: [*x, *x]", "f")

    assert not faults
    assert root is not None
    assert root.plain() == {"a": {"b": [1, 2]}, "c": {"b": [1, 2]}, "d": [{"b": [1, 2]}, {"b": [1, 2]}]}


def test_an_alias_bomb_is_refused_before_it_goes_off() -> None:
    levels = "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 30))
    began = time.perf_counter()
    root, faults = read_yaml(f"a0: &a0 [x]\n{levels}", "f")

    assert root is None
    assert faults[0].message.startswith(f"more than {MAX_NODES} values")
    assert time.perf_counter() - began < 1


def test_an_alias_counts_with_its_depth() -> None:
    root, faults = read_yaml("a: &x " + "[" * 20 + "]" * 20 + "\nb: " + "[" * 20 + "*x" + "]" * 20, "f")

    assert root is None
    assert faults[0].message == f"nested deeper than {MAX_DEPTH} levels"


@pytest.mark.parametrize(
    "text",
    [
        "a: 1\n" * 50_000,
        "[" * 200_000,
        "- " * 100_000,
        "? " * 100_000,
        "a: [" + "1," * 100_000 + "]",
        "a: " + "x " * 100_000,
        "a: >\n" + "\n" * 200_000,
        "".join(f"a{n}: &x{n} 1\n" for n in range(15_000)),
        ":" * 200_000,
    ],
    ids=["repeated", "brackets", "dashes", "questions", "flat", "words", "folded", "anchors", "colons"],
)
def test_hostile_text_of_full_size_takes_bounded_time(text: str) -> None:
    began = time.perf_counter()
    read_yaml(text, "f")
    assert time.perf_counter() - began < 10  # well under a second alone; far from what quadratic behaviour would take


_PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text("abc: #-\n'\"é本", max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abc é", max_size=4), inner, max_size=4),
    max_leaves=12,
)


@given(_PLAIN, st.booleans())
def test_what_pyyaml_writes_is_read_back(content: object, is_flow: bool) -> None:
    root, faults = read_yaml(yaml.safe_dump(content, allow_unicode=True, default_flow_style=is_flow), "f")

    assert not faults
    assert root is not None
    assert root.plain() == content


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    root, faults = read_yaml(text, "f")
    assert root is not None or faults
    assert all(fault.line >= 1 and fault.column >= 1 for fault in faults)
