"""What sections are called, and what that makes of them."""

import re
from collections.abc import Sequence

from medkg.contracts.document import SectionKind

TOP = frozenset(
    {"abstract", "introduction", "background", "methods", "method", "materials and methods", "results", "discussion"}
    | {"conclusion", "conclusions", "references", "acknowledgements", "acknowledgments", "methods and materials"}
    | {"patients and methods", "results and discussion", "summary", "limitations", "bibliography", "related work"}
)
_ABSTRACT = frozenset({"abstract", "summary"})
_REFERENCES = frozenset({"references", "bibliography", "literature cited", "literature"})
BACK = re.compile(
    r"(?:acknowledge?ments?|funding|disclosures?(?: statement)?|competing interests?|conflicts? of interests?|"
    r"declarations?(?: of (?:competing )?interests?)?|author(?:s.?|.s)? contributions?|abbreviations|"
    r"data availability(?: statement)?|availability of data(?: and materials?)?|orcid(?: ids?)?|"
    r"ethics approval(?: and consent to participate)?|consent for publication|publisher.s note|author details|"
    r"supplementary (?:material|information)s?|institutional review board(?: statement)?|"
    r"informed consent(?: statement)?|keywords?|article history|citation)",
    re.IGNORECASE,
)

_BEGINNINGS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")


def plain(heading: str) -> str:
    """A heading without its number, in lower case."""
    return re.sub(r"^(?:\d+(?:\.\d+)*|[IVX]+)\.?\s+", "", heading).strip(" .:").lower()


def is_known(text: str) -> bool:
    """Whether a row is nothing but what a section is usually called, and begins like a heading."""
    name = plain(text)
    return text[:1] in _BEGINNINGS and len(text) < 60 and (name in TOP or BACK.fullmatch(name) is not None)


def section_kind(path: Sequence[str]) -> SectionKind:
    """What a section is, by the names above it."""
    for heading in path:
        name = plain(heading)
        if name in _ABSTRACT:
            return SectionKind.ABSTRACT
        if name in _REFERENCES:
            return SectionKind.REFERENCES
        if BACK.fullmatch(name):
            return SectionKind.BACK
    return SectionKind.BODY
