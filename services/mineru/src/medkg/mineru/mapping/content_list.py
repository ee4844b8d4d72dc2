"""``content_list.json``: a flat list in reading order; boxes in thousandths of the page."""

from collections.abc import Iterator
from typing import Any

from medkg.mineru.mapping.pieces import (
    Kind,
    Piece,
    Sizes,
    clean,
    formula,
    normalised,
    objects,
    page_number,
    text_of,
    texts_of,
)

FURNITURE = frozenset({"page_number", "header", "footer", "aside_text", "page_header", "page_footer", "discarded"})


def read_content_list(value: Any, sizes: Sizes) -> Iterator[Piece]:
    """Its pieces; what belongs to the page and not to the text is left out."""
    for number, item in enumerate(objects(value)):
        kind = text_of(item.get("type"))
        if kind in FURNITURE:
            continue
        page = page_number(item.get("page_idx"))
        where: dict[str, Any] = {
            "page": page,
            "path": f"/content_list/{number}",
            "box": normalised(item.get("bbox"), sizes.get(page)),
        }
        yield _READERS.get(kind, _text)(kind, item, where)


def _table(kind: str, item: dict[str, Any], where: dict[str, Any]) -> Piece:
    return Piece(Kind.TABLE, html=text_of(item.get("table_body")), **_apart(kind, item), **where)


def _figure(kind: str, item: dict[str, Any], where: dict[str, Any]) -> Piece:
    return Piece(Kind.FIGURE, **_apart(kind, item), **where)


def _equation(kind: str, item: dict[str, Any], where: dict[str, Any]) -> Piece:
    return Piece(Kind.EQUATION, text=formula(text_of(item.get("text"))), **where)


def _list(kind: str, item: dict[str, Any], where: dict[str, Any]) -> Piece:
    what = Kind.REFERENCE if item.get("sub_type") == "ref_text" else Kind.ITEM
    return Piece(what, items=texts_of(item.get("list_items")), **where)


def _code(kind: str, item: dict[str, Any], where: dict[str, Any]) -> Piece:
    return Piece(Kind.CODE, text=clean(text_of(item.get("code_body"))), **_apart(kind, item), **where)


def _text(kind: str, item: dict[str, Any], where: dict[str, Any]) -> Piece:
    text, level = clean(text_of(item.get("text"))), item.get("text_level")
    if isinstance(level, int) and 1 <= level <= 9:
        return Piece(Kind.HEADING, text=text, level=level, **where)
    return Piece(_TEXTS.get(kind, Kind.TEXT), text=text, **where)


def _apart(kind: str, item: dict[str, Any]) -> dict[str, Any]:
    captions, notes = item.get(f"{kind}_caption"), item.get(f"{kind}_footnote")
    return {"captions": texts_of(captions), "footnotes": texts_of(notes)}


_TEXTS = {"page_footnote": Kind.NOTE, "ref_text": Kind.REFERENCE}
_READERS = {
    "table": _table,
    "image": _figure,
    "chart": _figure,
    "equation": _equation,
    "list": _list,
    "code": _code,
}
