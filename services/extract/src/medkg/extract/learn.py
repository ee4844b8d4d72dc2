"""Learning a dictionary from the MeSH descriptors that registry records carry: ``python -m medkg.extract.learn``.

A descriptor and its name come from the record's derived section; another name for it is what the registry says it found
in the record's own words (``asFound``). The result depends on the set of records, not on their order.
"""

import argparse
import hashlib
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from medkg.contracts.errors import ConfigurationError
from medkg.extract.dictionary import MAX_NAME_LENGTH, TYPES, Term, format_dictionary, mesh_id_of

MAX_RECORD_FILE_BYTES = 512 * 1024 * 1024  # one bulk download, read whole


class _Mesh(msgspec.Struct):
    id: str = ""
    term: str = ""


class _Leaf(msgspec.Struct, rename="camel"):
    name: str = ""
    as_found: str = ""


class _Browse(msgspec.Struct, rename="camel"):
    meshes: list[_Mesh] = []
    ancestors: list[_Mesh] = []
    browse_leaves: list[_Leaf] = []


class _Derived(msgspec.Struct, rename="camel"):
    condition_browse_module: _Browse = msgspec.field(default_factory=_Browse)
    intervention_browse_module: _Browse = msgspec.field(default_factory=_Browse)


class _Study(msgspec.Struct, rename="camel"):
    derived_section: _Derived = msgspec.field(default_factory=_Derived)


_ONE, _MANY = msgspec.json.Decoder(_Study), msgspec.json.Decoder(list[_Study])


def learn(records: Iterable[Any]) -> list[Term]:
    """Terms from study records as :func:`read_records` gives them. A descriptor seen as both kinds is a condition."""
    names: dict[str, dict[str, set[str]]] = {kind: {} for kind in TYPES}
    entries: dict[str, set[str]] = {}
    for study in records:
        derived = study.derived_section
        for kind, browse in zip(
            TYPES, (derived.condition_browse_module, derived.intervention_browse_module), strict=True
        ):
            of_name: dict[str, str] = {}
            for mesh in (*browse.meshes, *browse.ancestors):
                mesh_id, name = mesh_id_of(mesh.id), " ".join(mesh.term.split())
                if mesh_id and 0 < len(name) <= MAX_NAME_LENGTH:
                    names[kind].setdefault(mesh_id, set()).add(name)
                    of_name[name] = mesh_id
            for leaf in browse.browse_leaves:
                found = " ".join(leaf.as_found.replace("|", " ").split())
                if leaf.name in of_name and 0 < len(found) <= MAX_NAME_LENGTH:
                    entries.setdefault(of_name[leaf.name], set()).add(found)
    return sorted(
        (
            Term(mesh_id, kind, min(spelt), tuple(sorted(entries.get(mesh_id, set()) - {min(spelt)})))
            for place, kind in enumerate(TYPES)
            for mesh_id, spelt in names[kind].items()
            if not any(mesh_id in names[earlier] for earlier in TYPES[:place])
        ),
        key=lambda term: term.mesh_id,
    )


def read_records(paths: Sequence[Path]) -> Iterator[Any]:
    """The studies of files and folders: CT.gov v2 JSON, single or an array. A file that is none is told on stderr."""
    for path in paths:
        for file in sorted(path.rglob("*.json")) if path.is_dir() else [path]:
            try:
                if file.stat().st_size > MAX_RECORD_FILE_BYTES:
                    raise ConfigurationError(f"over the limit of {MAX_RECORD_FILE_BYTES} bytes")
                data = file.read_bytes()
                yield from _MANY.decode(data) if data.lstrip()[:1] == b"[" else [_ONE.decode(data)]
            except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ConfigurationError) as error:
                sys.stderr.write(f"skipped {file}: {error}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``medkg-extract-learn``: write a dictionary and print its digest for the topology."""
    parser = argparse.ArgumentParser(
        prog="medkg-extract-learn",
        description="Learn a dictionary of MeSH names from ClinicalTrials.gov v2 records.",
        epilog="example: medkg-extract-learn samples/trials --out dictionary.tsv",
    )
    parser.add_argument("records", nargs="+", type=Path, help="files and folders of study records")
    parser.add_argument("--out", required=True, type=Path, help="the dictionary file to write")
    given = parser.parse_args(arguments)
    terms = learn(read_records(given.records))
    data = format_dictionary(terms).encode()
    given.out.write_bytes(data)
    sys.stdout.write(
        f"{len(terms)} descriptors. In a topology:\n  uses: registry\n  with:\n"
        f"    dictionary: {given.out.resolve()}\n    dictionary_sha256: {hashlib.sha256(data).hexdigest()}\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
