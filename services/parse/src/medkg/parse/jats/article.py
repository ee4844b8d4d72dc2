"""An article to a document: front matter, abstracts, body, what stands behind it, and its references."""

from medkg.contracts.context import Metadata, StageContext
from medkg.contracts.document import Document, RawPayload, SectionKind
from medkg.contracts.errors import PayloadTooLargeError, PayloadUnsupportedError
from medkg.parse.builder import DocumentBuilder, flat
from medkg.parse.jats.flow import Flow
from medkg.parse.jats.front import add_keywords, identifiers_of, metadata_of, title_of
from medkg.parse.jats.tree import Child, child, children, read_xml, root_of

_LANGUAGE = "{http://www.w3.org/XML/1998/namespace}lang"


def parse_article(ctx: StageContext, payload: RawPayload) -> Document:
    """The document of one article.

    Left out: affiliations, notes on authors, permissions, descriptions of figures for other media, and formulas that
    are only images. Everything that is written in the body is in a block or in a heading, in its order.

    Raises:
        PayloadMalformedError: not well-formed. PayloadUnsupportedError: no JATS article, or it declares entities.
        PayloadTooLargeError: over a bound of size, depth or count.
    """
    at = f"parsing {payload.source_id}"
    root = root_of(read_xml(payload.text, at))
    parts = list(children(root))
    if root.name != "article" or not any(part.name in {"front", "body"} for part in parts):
        raise PayloadUnsupportedError(f"{at}: XML, but no JATS article (its root element is <{root.name[:60]}>)")
    builder = DocumentBuilder(payload.source_id)
    try:
        title, identifiers, metadata = _read(builder, root, parts)
    except RecursionError as error:
        raise PayloadTooLargeError(f"{at}: XML nested too deep") from error
    return Document(
        doc_id=ctx.doc_id,
        source=payload.source,
        source_id=payload.source_id,
        kind="article",
        title=title,
        sections=builder.sections(),
        identifiers=identifiers,
        metadata=metadata,
        language=flat(root.element.get(_LANGUAGE, "")).lower()[:35],  # the longest a tag gets (RFC 5646, section 4.4.1)
    )


def _read(builder: DocumentBuilder, root: Child, parts: list[Child]) -> tuple[str, dict[str, str], Metadata]:
    front = next((part for part in parts if part.name == "front"), None)
    meta = child(front, "article-meta") if front is not None else None
    if meta is not None:
        _abstracts(builder, meta)
    for part in parts:
        if part.name in {"body", "floats-group"}:
            Flow(builder, SectionKind.BODY).read(part)
        elif part.name == "back":
            Flow(builder, SectionKind.BACK).read(part)
        elif part.name in {"sub-article", "response"}:
            _attached(builder, part)
    if meta is not None:
        add_keywords(builder, meta)
    return (
        title_of(meta) if meta is not None else "",
        identifiers_of(meta) if meta is not None else {},
        metadata_of(root, front, meta),
    )


def _abstracts(builder: DocumentBuilder, meta: Child) -> None:
    for part in children(meta):
        if part.name in {"abstract", "trans-abstract"}:
            has_title = child(part, "title") is not None
            Flow(builder, SectionKind.ABSTRACT, () if has_title else ("Abstract",)).read(part)


def _attached(builder: DocumentBuilder, article: Child) -> None:
    """A review, reply or translation that comes with the article: kept apart, under its own title."""
    stub = child(article, "front-stub") or child(article, "front", "article-meta")
    title = title_of(stub) if stub is not None else ""
    kind = flat(article.element.get("article-type", "")) or article.name
    for part in children(article):
        if part.name in {"body", "back", "floats-group"}:
            Flow(builder, SectionKind.BACK, (title or kind,)).read(part)
        elif part.name in {"sub-article", "response"}:
            _attached(builder, part)
