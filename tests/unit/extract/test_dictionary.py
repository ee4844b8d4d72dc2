"""Dictionaries: what a file must be, and what its names stand for."""

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medkg.contracts.errors import ConfigurationError
from medkg.extract.dictionary import (
    HEADER,
    Dictionary,
    Term,
    format_dictionary,
    load_dictionary,
    mesh_id_of,
    packaged_dictionary,
    parse_dictionary,
    spellings,
)


@pytest.mark.parametrize(
    ("given_id", "expected"),
    [
        ("D003924", "D003924"),
        ("D000003924", "D003924"),
        ("D000086382", "D000086382"),
        ("C570240", "C570240"),
        ("C000570240", "C570240"),
        (" D003924 ", "D003924"),
        ("M12345", ""),
        ("D12", ""),
        ("", ""),
        ("D003924; DROP", ""),
    ],
)
def test_a_mesh_id_is_written_as_mesh_writes_it(given_id: str, expected: str) -> None:
    assert mesh_id_of(given_id) == expected


def test_an_inverted_name_is_known_in_its_natural_order_too() -> None:
    assert spellings("Lymphoma, Large B-Cell, Diffuse") == (
        "Lymphoma, Large B-Cell, Diffuse",
        "Diffuse Large B-Cell Lymphoma",
    )
    assert spellings("Asthma") == ("Asthma",)


def test_a_preferred_name_is_not_lost_to_an_entry_term_of_another_descriptor() -> None:
    dictionary = Dictionary([Term("D000001", "condition", "Alpha", ("Beta",)), Term("D000002", "condition", "Beta")])
    name = dictionary.matcher.whole("beta")
    assert name is not None and name.entity_id == "mesh:D000002"


def test_every_packaged_descriptor_is_found_by_its_own_name() -> None:
    dictionary = packaged_dictionary()
    assert len(dictionary.terms) > 70
    for term in dictionary.terms.values():
        name = dictionary.matcher.whole(term.name)
        assert name is not None and name.entity_id == term.entity_id, term


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        (["D003924\tcondition\tX\t"], "line 1 must be"),
        ([HEADER, "D003924\tcondition\tX"], "line 2: four fields"),
        ([HEADER, "# a remark", "X1\tcondition\tX\t"], "line 3: 'X1' is no MeSH id"),
        ([HEADER, "D003924\tdisease\tX\t"], "type 'disease' is none of"),
        ([HEADER, "D003924\tcondition\t\t"], "1 to 200 characters"),
        ([HEADER, "D003924\tcondition\t" + "x" * 201 + "\t"], "1 to 200 characters"),
        ([], "line 1 must be"),
    ],
)
def test_a_wrong_file_is_refused_with_its_line(lines: list[str], complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        parse_dictionary("\n".join(lines), "d.tsv")


def test_a_file_is_used_only_with_its_digest(tmp_path: Path) -> None:
    path = tmp_path / "d.tsv"
    path.write_text(format_dictionary([Term("D003924", "condition", "Diabetes Mellitus, Type 2", ("T2DM",))]))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert "mesh:D003924" in load_dictionary(path, digest).terms
    for wrong in ("", "0" * 64):
        with pytest.raises(ConfigurationError, match=f"its SHA-256 is {digest}"):
            load_dictionary(path, wrong)
    with pytest.raises(ConfigurationError, match="No such file"):
        load_dictionary(tmp_path / "absent.tsv", digest)


NAMES = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=20)


@given(st.dictionaries(st.integers(1, 60_000), st.tuples(NAMES, st.sets(NAMES, max_size=3)), max_size=8))
def test_a_dictionary_reads_back_as_it_was_written(given_terms: dict[int, tuple[str, set[str]]]) -> None:
    terms = [
        Term(f"D{number:06d}", "condition", name, tuple(sorted(entries)))
        for number, (name, entries) in sorted(given_terms.items())
    ]
    assert parse_dictionary(format_dictionary(reversed(terms)), "d") == terms
