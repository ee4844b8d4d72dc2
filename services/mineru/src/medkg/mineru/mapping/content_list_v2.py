"""``content_list_v2.json``: a list of pages, each a list of blocks whose content is spans."""

from collections.abc import Iterator
from typing import Any

from medkg.mineru.mapping.pieces import Kind, Piece, Sizes, clean, formula, normalised, objects, text_of

FURNITURE = frozenset({"page_number", "page_header", "page_footer", "page_aside_text", "header", "footer"})


def read_content_list_v2(value: Any, sizes: Sizes) -> Iterator[Piece]:
    """Its pieces; what belongs to the page and not to the text is left out."""
    for index, page in enumerate(value if isinstance(value, list) else []):
        for number, block in enumerate(objects(page)):
            kind, content = text_of(block.get("type")), block.get("content")
            if kind in FURNITURE or not isinstance(content, dict):
                continue
            where: dict[str, Any] = {
                "page": index + 1,
                "path": f"/content_list_v2/{index}/{number}",
                "box": normalised(block.get("bbox"), sizes.get(index + 1)),
            }
            yield _READERS.get(kind, _text)(kind, content, where)


def _title(kind: str, content: dict[str, Any], where: dict[str, Any]) -> Piece:
    level, text = content.get("level"), _spans(content.get("title_content"))
    return Piece(Kind.HEADING, text=text, level=level if isinstance(level, int) and 0 < level < 10 else 2, **where)


def _table(kind: str, content: dict[str, Any], where: dict[str, Any]) -> Piece:
    return Piece(Kind.TABLE, html=text_of(content.get("html")), **_apart(kind, content), **where)


def _figure(kind: str, content: dict[str, Any], where: dict[str, Any]) -> Piece:
    return Piece(Kind.FIGURE, **_apart(kind, content), **where)


def _equation(kind: str, content: dict[str, Any], where: dict[str, Any]) -> Piece:
    return Piece(Kind.EQUATION, text=formula(text_of(content.get("math_content"))), **where)


def _list(kind: str, content: dict[str, Any], where: dict[str, Any]) -> Piece:
    items = tuple(_spans(item.get("item_content")) for item in objects(content.get("list_items")))
    what = Kind.REFERENCE if text_of(content.get("list_type")).startswith("ref") else Kind.ITEM
    return Piece(what, items=items, **where)


def _code(kind: str, content: dict[str, Any], where: dict[str, Any]) -> Piece:
    return Piece(Kind.CODE, text=_spans(content.get(f"{kind}_content")), **_apart(kind, content), **where)


def _text(kind: str, content: dict[str, Any], where: dict[str, Any]) -> Piece:
    text = _spans(next((part for name, part in content.items() if name.endswith("_content")), None))
    return Piece(Kind.NOTE if kind == "page_footnote" else Kind.TEXT, text=text, **where)


def _apart(kind: str, content: dict[str, Any]) -> dict[str, Any]:
    captions, notes = _spans(content.get(f"{kind}_caption")), _spans(content.get(f"{kind}_footnote"))
    return {"captions": tuple(filter(None, [captions])), "footnotes": tuple(filter(None, [notes]))}


def _spans(value: Any) -> str:
    """Spans as one text; formulas between dollar signs."""
    if isinstance(value, str):
        return clean(value)
    parts = []
    for span in objects(value):
        text = text_of(span.get("content"))
        parts.append(f"${formula(text)}$" if span.get("type") == "equation_inline" else clean(text))
    return "".join(parts)


_READERS = {
    "title": _title,
    "table": _table,
    "image": _figure,
    "chart": _figure,
    "equation_interline": _equation,
    "list": _list,
    "code": _code,
    "algorithm": _code,
}
