"""The MeSH terms that the registry derives for a study."""

import re

from medkg.contracts.document import BlockKind, SectionKind
from medkg.parse.builder import DocumentBuilder
from medkg.parse.ctg.record import Node

_PADDED = re.compile(r"([CD])000(\d{6})")
# Numbers of six digits were given out up to about here; longer ones are real (MeSH, unique identifiers).
_LAST_SHORT = {"D": 66_000, "C": 580_000}
_LISTS = (
    ("condition_mesh", "conditionBrowseModule", "meshes"),
    ("condition_ancestor", "conditionBrowseModule", "ancestors"),
    ("intervention_mesh", "interventionBrowseModule", "meshes"),
    ("intervention_ancestor", "interventionBrowseModule", "ancestors"),
)


def add_terms(builder: DocumentBuilder, study: Node) -> None:
    """A section of controlled vocabulary: one field a term, with its ``mesh_id``."""
    builder.open_section(("MeSH terms",), SectionKind.TERMS)
    for role, module, name in _LISTS:
        for term in study.get("derivedSection", module, name).items():
            label = term.get("term")
            attributes = {"mesh_id": mesh_id(term.get("id").text)} if term.get("id").text else {}
            builder.add(label.text, label.at, BlockKind.FIELD, role=role, attributes=attributes)


def mesh_id(text: str) -> str:
    """MeSH's own form of an identifier; early answers of the API v2 pad it to nine digits (``D000003550``)."""
    found = _PADDED.fullmatch(text)
    if found is not None and int(found.group(2)) < _LAST_SHORT[found.group(1)]:
        return found.group(1) + found.group(2)
    return text
