"""The figures of an evaluation as a bar chart in SVG, readable in light and dark, with its numbers as text."""

from collections.abc import Mapping
from html import escape

_WIDTH, _BAR, _GAP, _LEFT, _TOP = 640, 18, 10, 130, 56
_COLOURS = ("#4c78a8", "#f58518", "#54a24b", "#b279a2")


def plot(title: str, measures: Mapping[str, Mapping[str, float]]) -> str:
    """One group of bars for each leg, one bar for each measure, all from 0 to 1."""
    names = list(next(iter(measures.values()), {}))
    group = len(names) * _BAR + _GAP
    height = _TOP + group * len(measures) + 10
    scale = _WIDTH - _LEFT - 70
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}"',
        ' font-family="sans-serif" font-size="13">',
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="10" y="20" font-weight="bold">{escape(title)}</text>',
    ]
    for number, name in enumerate(names):
        x, colour = 10 + 110 * number, _COLOURS[number % len(_COLOURS)]
        parts.append(f'<rect x="{x}" y="30" width="12" height="12" fill="{colour}"/>')
        parts.append(f'<text x="{x + 17}" y="41">{escape(name)}</text>')
    for row, (leg, values) in enumerate(measures.items()):
        y = _TOP + row * group
        parts.append(f'<text x="10" y="{y + len(names) * _BAR / 2 + 5:g}">{escape(leg)}</text>')
        for number, name in enumerate(names):
            at, length = y + number * _BAR, values[name] * scale
            colour = _COLOURS[number % len(_COLOURS)]
            parts.append(f'<rect x="{_LEFT}" y="{at}" width="{length:.1f}" height="{_BAR - 3}" fill="{colour}"/>')
            parts.append(f'<text x="{_LEFT + length + 6:.1f}" y="{at + 12}" font-size="11">{values[name]:.4f}</text>')
    return "\n".join([*parts, "</svg>", ""])
