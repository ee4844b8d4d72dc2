"""What all of MinerU's formats come down to: pieces of a page in reading order."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from html import unescape
from typing import Any

Box = tuple[float, float, float, float]
Sizes = dict[int, tuple[float, float]]  # page, from 1 -> width and height in points

MAX_PIECES = 200_000
MAX_CHARACTERS = 20_000_000  # of one text; assembling counts them all

_TAG = re.compile(r"</?(?:sup|sub|b|i|u|em|strong|span|br)(?:\s[^<>]{0,200})?/?>", re.IGNORECASE)
_ESCAPED = re.compile(r"\\([_*#\[\]&%$~`|<>{}])")
_MATH = re.compile(r"(\$[^$]{0,5000}\$)")


class Kind(Enum):
    HEADING = auto()
    TEXT = auto()
    ABSTRACT = auto()
    ITEM = auto()
    REFERENCE = auto()
    EQUATION = auto()
    TABLE = auto()
    FIGURE = auto()
    CODE = auto()
    NOTE = auto()  # a footnote of the page


@dataclass(frozen=True, slots=True)
class Piece:
    """``page`` counts from 1, ``box`` is in points; ``path`` leads back to its place in MinerU's output."""

    kind: Kind
    page: int
    path: str
    text: str = ""
    level: int = 0  # of a heading: 1 is the title
    box: Box | None = None
    html: str = ""
    captions: tuple[str, ...] = ()
    footnotes: tuple[str, ...] = ()
    items: tuple[str, ...] = field(default=())


def clean(text: str) -> str:
    """Text without the Markdown escapes and inline tags that MinerU puts in; formulas stay as they are."""
    parts = _MATH.split(text)
    parts[::2] = [unescape(_ESCAPED.sub(r"\1", _TAG.sub("", part))) for part in parts[::2]]
    return "".join(parts)


def formula(text: str) -> str:
    """LaTeX without the dollar signs around it."""
    return text.strip().removeprefix("$$").removesuffix("$$").strip()


def normalised(box: Any, size: tuple[float, float] | None) -> Box | None:
    """A box in thousandths of the page, in points; None where it is none, or the page's size is not known."""
    if size is None or (edges := four(box)) is None:
        return None
    width, height = size
    x0, y0, x1, y1 = (min(max(edge, 0.0), 1000.0) for edge in edges)
    return points((x0 * width / 1000, y0 * height / 1000, x1 * width / 1000, y1 * height / 1000), size)


def points(box: Any, size: tuple[float, float] | None) -> Box | None:
    """A box in points, within its page."""
    if (edges := four(box)) is None:
        return None
    width, height = size or (14_400.0, 14_400.0)  # the largest page there is (ISO 32000-1, annex C)
    x0, x1 = sorted((min(max(edges[0], 0.0), width), min(max(edges[2], 0.0), width)))
    y0, y1 = sorted((min(max(edges[1], 0.0), height), min(max(edges[3], 0.0), height)))
    return (round(x0, 1), round(y0, 1), round(x1, 1), round(y1, 1))


def four(box: Any) -> tuple[float, float, float, float] | None:
    """Four finite numbers, or nothing."""
    if not isinstance(box, list | tuple) or len(box) != 4:
        return None
    if not all(isinstance(edge, int | float) and abs(edge) < 1e6 for edge in box):
        return None
    return (float(box[0]), float(box[1]), float(box[2]), float(box[3]))


def text_of(value: Any) -> str:
    """A text, or nothing."""
    return value[:MAX_CHARACTERS] if isinstance(value, str) else ""


def texts_of(value: Any) -> tuple[str, ...]:
    """The texts in a list of them."""
    return tuple(clean(item) for item in value if isinstance(item, str)) if isinstance(value, list) else ()


def page_number(value: Any) -> int:
    """A page counted from 0, counted from 1."""
    return value + 1 if isinstance(value, int) and 0 <= value < 100_000 else 1


def objects(value: Any) -> Sequence[dict[str, Any]]:
    """The objects in a list."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
