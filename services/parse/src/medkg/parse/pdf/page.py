"""What is seen on a page, as plain data: the layout is decided on it without any PDF library.

All lengths are PDF points (1/72 inch) as the page is shown, from its top left corner.
"""

from dataclasses import dataclass, field

Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Style:
    """How text is set. ``size`` is the height of the font in points, ``face`` its name, which may say nothing."""

    size: float
    is_bold: bool = False
    is_italic: bool = False
    face: str = ""


@dataclass(slots=True)
class Run:
    """Characters set one after the other. ``baseline`` is the y on which they stand."""

    text: str
    x0: float
    x1: float
    top: float
    bottom: float
    baseline: float
    style: Style

    @property
    def box(self) -> Box:
        return (self.x0, self.top, self.x1, self.bottom)


@dataclass(slots=True)
class Page:
    """``number`` counts from 1. ``rules`` are long thin horizontal strokes; ``image_share`` is how much of the page its
    largest image covers. Of ``characters``, ``unmapped`` are those of which nobody knows what they are; ``hidden`` ones
    stand beside the page, are cut away, or do not run from left to right.
    """

    number: int
    width: float
    height: float
    runs: list[Run] = field(default_factory=list)
    rules: list[Box] = field(default_factory=list)
    image_share: float = 0.0
    drawings: int = 0
    characters: int = 0
    unmapped: int = 0
    hidden: int = 0


@dataclass(slots=True)
class Line:
    """Runs on one baseline, from left to right."""

    runs: list[Run]
    page: int

    @property
    def x0(self) -> float:
        return self.runs[0].x0

    @property
    def x1(self) -> float:
        return max(run.x1 for run in self.runs)

    @property
    def top(self) -> float:
        return min(run.top for run in self.runs)

    @property
    def bottom(self) -> float:
        return max(run.bottom for run in self.runs)

    @property
    def box(self) -> Box:
        return (self.x0, self.top, self.x1, self.bottom)

    @property
    def style(self) -> Style:
        """That of most of its characters."""
        weights: dict[Style, int] = {}
        for run in self.runs:
            weights[run.style] = weights.get(run.style, 0) + len(run.text)
        return max(weights, key=lambda style: weights[style])

    @property
    def text(self) -> str:
        """With a space wherever there is room for one."""
        parts: list[str] = []
        before: Run | None = None
        for run in self.runs:
            if before is not None and run.x0 - before.x1 > 0.15 * min(run.style.size, before.style.size):
                parts.append(" ")
            parts.append(run.text)
            before = run
        return "".join(parts).strip()


def around(boxes: list[Box]) -> Box:
    """The smallest box that holds all of these."""
    return (
        min(box[0] for box in boxes),
        min(box[1] for box in boxes),
        max(box[2] for box in boxes),
        max(box[3] for box in boxes),
    )


def rounded(box: Box) -> Box:
    """To a tenth of a point."""
    return (round(box[0], 1), round(box[1], 1), round(box[2], 1), round(box[3], 1))
