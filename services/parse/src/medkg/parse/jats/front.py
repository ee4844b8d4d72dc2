"""What an article says about itself: identifiers, title, year, journal, keywords, and whether it is retracted."""

import re

from medkg.contracts.context import Metadata
from medkg.contracts.document import BlockKind, SectionKind
from medkg.parse.builder import DocumentBuilder, flat
from medkg.parse.jats.inline import text_of
from medkg.parse.jats.tree import Child, Element, child, children, name_of

_PMCID = re.compile(r"(?:PMC)?(\d{1,12})", re.IGNORECASE)
_YEAR = re.compile(r"\d{4}")
_MESH = re.compile(r"(?:.*/)?([CDM]\d{6,9})")


def title_of(meta: Child) -> str:
    """The title with its subtitle."""
    group = child(meta, "title-group")
    parts = [] if group is None else [p for p in children(group) if p.name in {"article-title", "subtitle"}]
    return ": ".join(filter(None, (flat(text_of(part.element)) for part in parts)))


def identifiers_of(meta: Child) -> dict[str, str]:
    """``doi``, ``pmid`` and ``pmcid``, as far as they are given."""
    found: dict[str, str] = {}
    for part in children(meta):
        if part.name == "article-id":
            scheme, value = part.element.get("pub-id-type", ""), flat(text_of(part.element))
            if scheme in {"pmc", "pmcid"} and (pmc := _PMCID.fullmatch(value)) is not None:
                found["pmcid"] = f"PMC{pmc.group(1)}"
            elif scheme in {"doi", "pmid"} and value:
                found[scheme] = value
    return found


def metadata_of(article: Child, front: Child | None, meta: Child | None) -> Metadata:
    """Small facts to filter and route by: ``article_type``, ``journal``, ``year``, ``authors`` and ``retracted``."""
    article_type = flat(article.element.get("article-type", ""))[:100]
    metadata: Metadata = {"retracted": _is_retraction(article_type)}
    if article_type:
        metadata["article_type"] = article_type
    if front is not None and (journal := _journal(front)):
        metadata["journal"] = journal[:300]
    if meta is not None:
        if years := _years(meta):
            metadata["year"] = min(years)
        metadata["authors"] = _authors(meta)
        metadata["retracted"] = _is_retraction(article_type) or _has_retraction(meta.element)
    return metadata


def add_keywords(builder: DocumentBuilder, meta: Child) -> None:
    """Keywords and subjects as fields; a term of MeSH has the role ``mesh_term`` and, if it is given, a ``mesh_id``."""
    builder.open_section(("Keywords",), SectionKind.TERMS)
    for group in children(meta):
        if group.name == "kwd-group":
            for keyword in children(group):
                if keyword.name in {"kwd", "compound-kwd", "nested-kwd"}:
                    _keyword(builder, keyword, group.element)
        elif group.name == "article-categories":
            _subjects(builder, group)


def _subjects(builder: DocumentBuilder, group: Child, depth: int = 0) -> None:
    for part in children(group):
        if part.name == "subject":
            builder.add(text_of(part.element), part.at, BlockKind.FIELD, role="subject")
        elif part.name == "subj-group" and depth < 20:
            _subjects(builder, part, depth + 1)


def _keyword(builder: DocumentBuilder, keyword: Child, group: Element) -> None:
    names = (keyword.element.get("vocab", ""), group.get("vocab", ""), group.get("kwd-group-type", ""))
    is_mesh = any("mesh" in name.lower() for name in names)
    given = keyword.element.get("vocab-term-identifier", "").strip()
    identifier = _MESH.fullmatch(given[:300]) if is_mesh else None
    builder.add(
        text_of(keyword.element),
        keyword.at,
        BlockKind.FIELD,
        role="mesh_term" if is_mesh else "keyword",
        attributes={"mesh_id": identifier.group(1)} if identifier is not None else {},
    )


def _journal(front: Child) -> str:
    grouped = child(front, "journal-meta", "journal-title-group", "journal-title")
    found = grouped or child(front, "journal-meta", "journal-title")
    return flat(text_of(found.element)) if found is not None else ""


def _years(meta: Child) -> list[int]:
    dates = [part for part in children(meta) if part.name == "pub-date"]
    texts = (flat(text_of(part.element)) for date in dates for part in children(date) if part.name == "year")
    return [int(text) for text in texts if text.isascii() and _YEAR.fullmatch(text)]


def _authors(meta: Child) -> int:
    """Contributors who are authors, or not said to be something else."""
    groups = (part for part in children(meta) if part.name == "contrib-group")
    people = (person for group in groups for person in children(group) if person.name == "contrib")
    return sum(1 for person in people if person.element.get("contrib-type", "author") == "author")


def _has_retraction(meta: Element) -> bool:
    """Whether a relation or event says that this article retracts another, or was retracted itself."""
    for element in meta.iter("{*}related-article", "{*}related-object", "{*}event"):
        kind = "event-type" if name_of(element) == "event" else "related-article-type"
        if _is_retraction(element.get(kind, "")):
            return True
    return False


def _is_retraction(kind: str) -> bool:
    return "retract" in kind.lower()
