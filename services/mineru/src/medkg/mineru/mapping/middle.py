"""``middle.json``: MinerU's own form, page by page, with boxes in points. The other formats are made from it."""

from collections.abc import Iterator
from typing import Any

from medkg.mineru.mapping.pieces import Kind, Piece, Sizes, clean, formula, objects, page_number, points, text_of

_TEXTS = {
    "text": Kind.TEXT,
    "abstract": Kind.ABSTRACT,
    "ref_text": Kind.REFERENCE,
    "list": Kind.ITEM,
    "index": Kind.ITEM,
    "title": Kind.HEADING,
    "interline_equation": Kind.EQUATION,
}
_GROUPS = {"table": Kind.TABLE, "image": Kind.FIGURE, "chart": Kind.FIGURE, "code": Kind.CODE}
_MAX_NESTED = 100  # blocks of a block


def page_sizes(middle: Any) -> Sizes:
    """Width and height of the pages, in points."""
    found: Sizes = {}
    for page in _pages(middle):
        size = page.get("page_size")
        if isinstance(size, list) and len(size) == 2 and all(_is_length(edge) for edge in size):
            found[page_number(page.get("page_idx"))] = (float(size[0]), float(size[1]))
    return found


def read_middle(middle: Any) -> Iterator[Piece]:
    """Its pieces; blocks that were merged into others, and what was discarded, are left out (but for footnotes)."""
    sizes = page_sizes(middle)
    for page in _pages(middle):
        number = page_number(page.get("page_idx"))
        for index, block in enumerate(objects(page.get("para_blocks"))):
            piece = _piece(block, number, f"/pdf_info/{number - 1}/para_blocks/{index}", sizes)
            if piece is not None:
                yield piece
        for index, block in enumerate(objects(page.get("discarded_blocks"))):
            if block.get("type") == "page_footnote":
                path = f"/pdf_info/{number - 1}/discarded_blocks/{index}"
                box = points(block.get("bbox"), sizes.get(number))
                yield Piece(Kind.NOTE, number, path, text=_lines(block), box=box)


def _piece(block: dict[str, Any], page: int, path: str, sizes: Sizes) -> Piece | None:
    kind = text_of(block.get("type"))
    box = points(block.get("bbox"), sizes.get(page))
    if kind in _GROUPS:
        return _group(_GROUPS[kind], block, Piece(_GROUPS[kind], page, path, box=box))
    if block.get("lines_deleted") is True and not block.get("lines"):
        return None
    text = formula(_lines(block)) if kind == "interline_equation" else _lines(block)
    level = block.get("level")
    return Piece(
        _TEXTS.get(kind, Kind.TEXT),
        page,
        path,
        text=text,
        level=level if isinstance(level, int) and 0 < level < 10 else 2,
        box=box,
    )


def _group(kind: Kind, block: dict[str, Any], piece: Piece) -> Piece | None:
    captions, notes, bodies, html = [], [], [], ""
    for part in objects(block.get("blocks"))[:_MAX_NESTED]:
        name = text_of(part.get("type"))
        if name.endswith("_caption"):
            captions.append(_lines(part))
        elif name.endswith("_footnote"):
            notes.append(_lines(part))
        elif part.get("lines_deleted") is not True:
            bodies.append(_lines(part))
            html = html or _html(part)
    return Piece(
        kind,
        piece.page,
        piece.path,
        text="\n".join(bodies) if kind is Kind.CODE else "",
        box=piece.box,
        html=html,
        captions=tuple(filter(None, captions)),
        footnotes=tuple(filter(None, notes)),
    )


def _html(block: dict[str, Any]) -> str:
    for line in objects(block.get("lines")):
        for span in objects(line.get("spans")):
            if span.get("type") == "table":
                return text_of(span.get("html"))
    return ""


def _lines(block: dict[str, Any]) -> str:
    """The lines of a block as one text; a hyphen at the end of one goes where a word goes on after it."""
    text = ""
    for line in objects(block.get("lines")):
        said = " ".join(filter(None, (_span(span) for span in objects(line.get("spans")))))
        if text.endswith("-") and text[-2:-1].isalpha() and said[:1].islower():
            text = text[:-1] + said
        else:
            text = f"{text} {said}" if text else said
    return text


def _span(span: dict[str, Any]) -> str:
    text = text_of(span.get("content"))
    if span.get("type") == "inline_equation":
        return f"${formula(text)}$"
    return text if span.get("type") == "interline_equation" else clean(text)


def _pages(middle: Any) -> list[dict[str, Any]]:
    return list(objects(middle.get("pdf_info"))) if isinstance(middle, dict) else []


def _is_length(value: Any) -> bool:
    return isinstance(value, int | float) and 0 < value < 1e6
