"""The results of a run as one SVG picture: throughput and latency of each system, on logarithmic scales."""

import math
from collections.abc import Mapping
from html import escape
from typing import Any

_WIDTH, _LEFT, _RIGHT, _ROW = 900, 190, 90, 26
_LOADS = ("30 %", "80 %")
_MARKS = (("p50", "#1b7f5c"), ("p95", "#c98a00"), ("p99", "#b3261e"))


def picture(results: Mapping[str, Any]) -> str:
    """An SVG document. Bars are documents per second; dots are p50, p95 and p99 at 30 % and 80 % of that."""
    systems: Mapping[str, Any] = results["systems"]
    parts = [_text(10, 24, "Documents a second through eight hops (logarithmic)", weight="bold")]
    rates = {name: found["documents_per_second"] for name, found in systems.items()}
    scale = _Scale(min(rates.values()), max(rates.values()))
    top = 40
    for name, rate in rates.items():
        parts += [_text(_LEFT - 8, top + 16, name, anchor="end"), _bar(top + 4, scale.at(rate), name == "medkg")]
        parts.append(_text(scale.at(rate) + 6, top + 16, f"{rate:,.1f}"))
        top += _ROW
    rows = [
        (f"{name}, {load}", found["latency_ms"][load])
        for name, found in systems.items()
        for load in _LOADS
        if load in found.get("latency_ms", {})
    ]
    if rows:
        top += 40
        parts.append(_text(10, top - 12, "Milliseconds from arrival to the last hop (logarithmic)", weight="bold"))
        values = [row[mark] for _, row in rows for mark, _ in _MARKS]
        scale = _Scale(min(values), max(values))
        for label, row in rows:
            parts.append(_text(_LEFT - 8, top + 16, label, anchor="end"))
            parts += [_dot(scale.at(row[mark]), top + 12, colour) for mark, colour in _MARKS]
            parts.append(
                _text(scale.at(row["p99"]) + 10, top + 16, f"{row['p50']:,.0f} / {row['p95']:,.0f} / {row['p99']:,.0f}")
            )
            top += _ROW
    about = results["settings"]
    parts.append(_text(10, top + 24, f"{about['documents']} documents of {about['bytes']} bytes; dots: p50, p95, p99"))
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {top + 36}" '
        f'font-family="sans-serif" font-size="13"><rect width="100%" height="100%" fill="#fff"/>\n{body}\n</svg>\n'
    )


class _Scale:
    """From values to pixels; a decade is as wide as any other, and the least value still has a bar."""

    def __init__(self, least: float, greatest: float) -> None:
        self._low = math.log10(max(least, 1e-6)) - 0.3
        self._span = max(math.log10(max(greatest, 1e-6)) - self._low, 0.3)

    def at(self, value: float) -> float:
        part = (math.log10(max(value, 1e-6)) - self._low) / self._span
        return round(_LEFT + part * (_WIDTH - _LEFT - _RIGHT - 60), 1)


def _text(x: float, y: float, text: str, *, anchor: str = "start", weight: str = "normal") -> str:
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}" font-weight="{weight}" fill="#222">{escape(text)}</text>'


def _bar(y: float, end: float, is_ours: bool) -> str:
    colour = "#1b5faa" if is_ours else "#9aa7b5"
    return f'<rect x="{_LEFT}" y="{y}" width="{round(end - _LEFT, 1)}" height="16" fill="{colour}"/>'


def _dot(x: float, y: float, colour: str) -> str:
    return f'<circle cx="{x}" cy="{y}" r="5" fill="{colour}"/>'
