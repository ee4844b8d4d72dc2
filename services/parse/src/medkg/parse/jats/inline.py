"""Mixed content as running text: no word lost, none glued to its neighbour."""

import re

from medkg.parse.jats.formula import math_text, tex_text
from medkg.parse.jats.tree import Element, check_depth, entity_text, name_of

# Not text of the article: files, identifiers of its parts, descriptions for other media, rights.
UNREAD = frozenset(
    (
        "graphic",
        "inline-graphic",
        "object-id",
        "alt-text",
        "long-desc",
        "permissions",
        "glyph-data",
        "target",
        "milestone",
    )
)
# What stands apart from its neighbours wherever it occurs.
_APART = frozenset(
    (
        *("p", "title", "subtitle", "label", "caption", "list", "list-item", "def-list", "def-item", "term", "def"),
        *("disp-quote", "disp-formula", "table", "thead", "tbody", "tfoot", "tr", "td", "th", "break", "hr", "sec"),
        *(
            "fn",
            "fn-group",
            "table-wrap",
            "table-wrap-foot",
            "fig",
            "boxed-text",
            "attrib",
            "verse-group",
            "verse-line",
        ),
        *("preformat", "code", "speech", "statement", "supplementary-material", "media", "note", "pub-id"),
    )
)
_MARKS = frozenset(("bibr", "fn", "table-fn", "aff", "corresp", "author-notes"))  # of xref: numbers of notes
_EXPONENT = re.compile(r"[-+\N{MINUS SIGN}\N{EN DASH}]?\d")
_BETTER = ("table", "tex-math", "math", "textual-form")


def text_of(element: Element) -> str:
    """All text of an element, without what follows it."""
    line = Line()
    line.content(element)
    return line.text()


def chosen(alternatives: Element) -> Element | None:
    """The one of several forms of the same thing that is text: a table, TeX, MathML; else the first that is read."""
    forms = [form for form in alternatives if name_of(form)]
    for name in _BETTER:
        if (found := next((form for form in forms if name_of(form) == name), None)) is not None:
            return found
    return next((form for form in forms if name_of(form) not in UNREAD), None)


class Line:
    """Collects running text from mixed content."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._last = ""
        self._is_apart = False

    def text(self) -> str:
        return "".join(self._parts)

    def put(self, text: str | None) -> None:
        """Text as it stands, but with a space where a mark has just ended or begun within a word."""
        if not text:
            return
        if self._is_apart and self._last.isalnum() and text[0].isalnum():
            self._parts.append(" ")
        self._is_apart = False
        self._parts.append(text)
        self._last = text[-1]

    def space(self) -> None:
        if self._last and not self._last.isspace():
            self._parts.append(" ")
            self._last = " "

    def content(self, element: Element, depth: int = 0) -> None:
        """The text within an element."""
        check_depth(depth)
        self.put(element.text)
        for part in element:
            self.element(part, depth + 1)
            self.put(part.tail)

    def element(self, element: Element, depth: int = 0) -> None:
        """One element of mixed content, without its tail."""
        name = name_of(element)
        if not name:
            self.put(entity_text(element))
        elif name in UNREAD:
            return
        elif name in _APART:
            self.space()
            self.content(element, depth)
            self.space()
        elif name == "math":
            self._formula(math_text(element))
        elif name == "tex-math":
            self._formula(tex_text(element))
        elif name == "alternatives":
            if (form := chosen(element)) is not None:
                self.element(form, depth + 1)
        elif name == "xref" and element.get("ref-type") in _MARKS:
            self._is_apart = True
            self.content(element, depth)
            self._is_apart = True
        else:
            if name == "sup" and self._last.isdigit() and _is_exponent(element):
                self.put("^")
            self.content(element, depth)

    def _formula(self, text: str) -> None:
        self._is_apart = True
        self.put(text)
        self._is_apart = True


def _is_exponent(sup: Element) -> bool:
    """Whether a superscript behind a digit is a power (``10<sup>6</sup>``), not the number of a note."""
    return len(sup) == 0 and _EXPONENT.match(sup.text or "") is not None
