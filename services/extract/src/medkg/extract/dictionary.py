"""A versioned vocabulary: which names stand for which MeSH descriptor, and what kind of thing it is.

Where names come from, and why the order of documents cannot show: what is read from a document depends on that document
and on a dictionary that is fixed for the run, never on documents that came before. The record's own descriptors are
looked for in its own text; everything else is in the dictionary, which is a file: the one in this package, or one that
was learnt beforehand from a folder of records (``python -m medkg.extract.learn``) and is named by path and digest. A
service that learnt while it worked would extract different things after a restart, on another replica, or on a replay.
"""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

from medkg.contracts.errors import ConfigurationError
from medkg.extract.matching import Matcher, Name

HEADER = "# medkg dictionary 1"
MAX_FILE_BYTES = 64 * 1024 * 1024
MAX_NAME_LENGTH = 200
TYPES = ("condition", "intervention")

_ENTRY_SEPARATOR = " | "
_MESH = re.compile(r"([DC])(\d{6,9})")
# Numbers that MeSH gave out with six digits end about here; higher ones have nine.
_LAST_SHORT_NUMBER = {"D": 66_400, "C": 587_000}


@dataclass(frozen=True, slots=True)
class Term:
    """A descriptor: its MeSH id, what it is, its preferred name, and other names for it."""

    mesh_id: str
    type: str
    name: str
    entry_terms: tuple[str, ...] = ()

    @property
    def entity_id(self) -> str:
        return f"mesh:{self.mesh_id}"


class Dictionary:
    """Terms by entity id, and a matcher for all their names."""

    def __init__(self, terms: Iterable[Term]) -> None:
        ordered = sorted(terms, key=lambda term: term.mesh_id)
        self.terms = {term.entity_id: term for term in ordered}
        preferred = [Name(name, t.entity_id) for t in ordered for name in spellings(t.name)]
        others = [Name(name, t.entity_id) for t in ordered for entry in t.entry_terms for name in spellings(entry)]
        self.matcher = Matcher(preferred + others)


def spellings(name: str) -> tuple[str, ...]:
    """A name and, where MeSH inverted it, its natural order: "Malaria, Falciparum" is "Falciparum Malaria" too."""
    parts = name.split(", ")
    return (name,) if len(parts) == 1 else (name, " ".join(reversed(parts)))


def mesh_id_of(given: str) -> str:
    """A MeSH id as MeSH writes it; some exports pad all of them to nine digits. Empty where it is none."""
    match = _MESH.fullmatch(given.strip())
    if match is None:
        return ""
    letter, number = match.group(1), int(match.group(2))
    if number > _LAST_SHORT_NUMBER[letter]:
        return match.group()
    return f"{letter}{number:06d}"


@cache
def packaged_dictionary() -> Dictionary:
    """The dictionary that comes with medkg: small, written for it, enough for its samples."""
    file = resources.files("medkg.extract") / "dictionary.tsv"
    return Dictionary(parse_dictionary(file.read_text(encoding="utf-8"), "the packaged dictionary"))


def load_dictionary(path: Path, sha256: str) -> Dictionary:
    """A dictionary from a file whose content is pinned.

    Raises:
        ConfigurationError: the file cannot be read, is too large, is no dictionary, or has another digest. The digest
            is part of the stage's settings, and so of the key of every result: a changed file is a new setting.
    """
    doing = f"loading the dictionary {path}"
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ConfigurationError(f"{doing}: it is over the limit of {MAX_FILE_BYTES} bytes")
        data = path.read_bytes()
        text = data.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{doing}: {error}") from error
    digest = hashlib.sha256(data).hexdigest()
    if digest != sha256:
        given = f"{sha256} is expected" if sha256 else "none is given"
        raise ConfigurationError(f"{doing}: its SHA-256 is {digest}, {given}; set dictionary_sha256 to it")
    return Dictionary(parse_dictionary(text, str(path)))


def parse_dictionary(text: str, where: str) -> list[Term]:
    """Terms of a dictionary file: a header, then id, type, name and entry terms, separated by tabs.

    Raises:
        ConfigurationError: names the first line that is not one.
    """
    lines = text.splitlines()
    if not lines or lines[0] != HEADER:
        raise ConfigurationError(f"reading {where}: line 1 must be {HEADER!r}")
    return [
        _term(line, f"{where}, line {number}")
        for number, line in enumerate(lines[1:], start=2)
        if line and not line.startswith("#")
    ]


def format_dictionary(terms: Iterable[Term]) -> str:
    """The file of a dictionary; the same terms always give the same bytes."""
    lines = [
        "\t".join((term.mesh_id, term.type, term.name, _ENTRY_SEPARATOR.join(sorted(term.entry_terms))))
        for term in sorted(terms, key=lambda term: term.mesh_id)
    ]
    return "\n".join([HEADER, *lines]) + "\n"


def _term(line: str, where: str) -> Term:
    fields = line.split("\t")
    if len(fields) != 4:
        raise ConfigurationError(f"reading {where}: four fields separated by tabs expected, found {len(fields)}")
    given, kind, name, entries = fields
    mesh_id = mesh_id_of(given)
    if not mesh_id:
        raise ConfigurationError(f"reading {where}: {given[:40]!r} is no MeSH id such as D003924")
    if kind not in TYPES:
        raise ConfigurationError(f"reading {where}: type {kind[:40]!r} is none of {', '.join(TYPES)}")
    names = (name, *(entry for entry in entries.split(_ENTRY_SEPARATOR) if entry))
    if not all(0 < len(entry) <= MAX_NAME_LENGTH for entry in names):
        raise ConfigurationError(f"reading {where}: names must have 1 to {MAX_NAME_LENGTH} characters")
    return Term(mesh_id, kind, name, names[1:])
