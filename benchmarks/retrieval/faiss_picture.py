"""The cost curve of FAISS as a picture: time to search, time to build and size by number of vectors."""

import math
from collections.abc import Sequence
from typing import Any

COLOURS = {"flat": "#777777", "hnsw": "#1f77b4", "ivf": "#d62728"}
PANELS = (("cpu_ms", "a search, ms of CPU"), ("build_cpu_seconds", "to build, s of CPU"), ("disk_mb", "size, MB"))
WIDTH, HEIGHT, LEFT, TOP, GAP = 320, 300, 60, 60, 30
LEAST = 0.01  # of a logarithmic axis
_TEXT = '<text x="{:.0f}" y="{:.0f}" font-size="12" text-anchor="{}">{}</text>'


def picture(points: Sequence[dict[str, Any]]) -> str:
    """As SVG; all axes are logarithmic, one curve for each kind of index."""
    total = len(PANELS) * (LEFT + WIDTH + GAP)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {total} {TOP + HEIGHT + 60}" font-family="sans-serif">',
        f'<rect width="{total}" height="{TOP + HEIGHT + 60}" fill="white"/>',
    ]
    for number, (kind, colour) in enumerate(COLOURS.items()):
        lines.append(f'<rect x="{LEFT + 90 * number}" y="10" width="12" height="12" fill="{colour}"/>')
        lines.append(_TEXT.format(LEFT + 90 * number + 18, 21, "start", kind))
    for number, (field, title) in enumerate(PANELS):
        lines.extend(_panel(points, field, title, LEFT + number * (LEFT + WIDTH + GAP)))
    return "\n".join([*lines, "</svg>"]) + "\n"


def _panel(points: Sequence[dict[str, Any]], field: str, title: str, left: float) -> list[str]:
    values = [max(point[field], LEAST) for point in points]
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)) + 1e-9)
    sizes = sorted({point["vectors"] for point in points})
    first, last = math.log10(sizes[0]), math.log10(sizes[-1])

    def x(count: int) -> float:
        return left + (math.log10(count) - first) / max(last - first, 1e-9) * WIDTH

    def y(value: float) -> float:
        return TOP + (high - math.log10(max(value, LEAST))) / max(high - low, 1) * HEIGHT

    lines = [_TEXT.format(left, TOP - 12, "start", title)]
    for power in range(low, high + 1):
        lines.append(f'<path d="M{left:.0f} {y(10.0**power):.1f}h{WIDTH}" stroke="#ddd"/>')
        lines.append(_TEXT.format(left - 6, y(10.0**power) + 4, "end", f"{10.0**power:g}"))
    lines.extend(
        _TEXT.format(x(size), TOP + HEIGHT + 20, "middle", f"{size:,}".replace(",", " "))
        for size in sizes[:: 2 if len(sizes) > 4 else 1]
    )
    for kind, colour in COLOURS.items():
        curve = sorted((point["vectors"], point[field]) for point in points if point["kind"] == kind)
        if curve:
            path = "L".join(f"{x(size):.1f} {y(value):.1f}" for size, value in curve)
            lines.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
            lines.extend(f'<circle cx="{x(s):.1f}" cy="{y(v):.1f}" r="3" fill="{colour}"/>' for s, v in curve)
    return lines
