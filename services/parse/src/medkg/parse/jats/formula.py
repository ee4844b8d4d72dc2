"""Formulas as one line of text."""

import re

from medkg.parse.jats.tree import Element, check_depth, entity_text, name_of

_TEX_BEGIN, _TEX_END = "\\begin{document}", "\\end{document}"
_GROUPED = re.compile(r"[\W_]", re.ASCII)


def tex_text(element: Element) -> str:
    """TeX without the preamble that publishers wrap around it."""
    source = "".join(str(part) for part in element.itertext())
    _, begin, body = source.partition(_TEX_BEGIN)
    return (body.partition(_TEX_END)[0] if begin else source).strip()


def math_text(element: Element, depth: int = 0) -> str:
    """Presentation MathML on a line: ``x_i^2``, ``(a+b)/c``, ``√(x)``. Everything it shows, in its order."""
    check_depth(depth)
    name = name_of(element)
    if not name:
        return entity_text(element)
    parts = [math_text(part, depth + 1) for part in _parts(element)]
    text = _SHAPES[name](parts) if name in _SHAPES and len(parts) > 1 else None
    if text is not None:
        return text
    own = " ".join((element.text or "").split())
    inner = _joined([own, *parts])
    if name in {"msqrt", "mroot"}:
        return f"√({inner})"
    if name == "mfenced":
        return f"{element.get('open', '(')}{inner}{element.get('close', ')')}"
    return inner


def _parts(element: Element) -> list[Element]:
    """What is shown of an element: of ``semantics`` only the presentation, not its annotations."""
    parts = [part for part in element if name_of(part) or entity_text(part)]
    return parts[:1] if name_of(element) == "semantics" else parts


def _joined(parts: list[str]) -> str:
    """Side by side, with a space where two words would become one."""
    line = ""
    for part in parts:
        if line and part and line[-1].isalnum() and part[0].isalnum():
            line += " "
        line += part
    return line


def _group(text: str) -> str:
    return f"({text})" if _GROUPED.search(text) else text


_SHAPES = {
    "msub": lambda p: f"{p[0]}_{_group(p[1])}",
    "msup": lambda p: f"{p[0]}^{_group(p[1])}",
    "msubsup": lambda p: f"{p[0]}_{_group(p[1])}" + "".join(f"^{_group(rest)}" for rest in p[2:]),
    "munder": lambda p: f"{p[0]}_{_group(p[1])}",
    "mover": lambda p: f"{p[0]}^{_group(p[1])}",
    "munderover": lambda p: f"{p[0]}_{_group(p[1])}" + "".join(f"^{_group(rest)}" for rest in p[2:]),
    "mfrac": lambda p: f"{_group(p[0])}/{_group(p[1])}",
    "mtable": "; ".join,
    "mtr": ", ".join,
}
