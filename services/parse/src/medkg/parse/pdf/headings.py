"""Which paragraphs are headings, and how deep: by their numbers, else by how they are set."""

import re
from collections.abc import Sequence

from medkg.parse.pdf.names import BACK, TOP, plain
from medkg.parse.pdf.page import Style
from medkg.parse.pdf.paragraphs import Kind, Paragraph

_NUMBERED = re.compile(r"(\d{1,2}(?:\.\d{1,2}){0,4})\.?\s+\S")
_LETTERSPACED = re.compile(r"(?:\b\w ){3,}\w\b")


class Headings:
    """Knows the title and the headings of a document, and the path of each as it is walked through."""

    def __init__(self, paragraphs: list[Paragraph], body: Style, *, has_title: bool = True) -> None:
        self._paragraphs = paragraphs
        self._body = body
        self._path: list[tuple[int, str]] = []
        self._title = self._find_title() if has_title else None
        headings = [p for p in paragraphs if p.kind is Kind.HEADING and p is not self._title]
        self._top = next((p.style for p in headings if plain(" ".join(p.texts)) in TOP - {"abstract"}), None)
        self._ranks = _ranked([p.style for p in headings], self._top)

    def title_and_rest(self) -> tuple[Paragraph | None, list[Paragraph]]:
        """The title, and everything below and beside it: what stands over it is furniture of the first page."""
        if self._title is None:
            return None, self._paragraphs
        top = self._title.box[1]
        rest = [
            p for p in self._paragraphs if p is not self._title and not (p.page == self._title.page and p.box[3] <= top)
        ]
        return self._title, rest

    def first_of_text(self, paragraphs: Sequence[Paragraph]) -> int:
        """The index of the first heading that opens the text: what stands before it is front matter."""
        if self._title is None:
            return 0
        for number, paragraph in enumerate(paragraphs[:80]):
            if paragraph.kind is Kind.HEADING and plain(" ".join(paragraph.texts)) in TOP:
                return number
        return 0

    def path_at(self, paragraph: Paragraph, text: str) -> list[str] | None:
        """The path of headings from here on, where this paragraph is one."""
        if paragraph.kind is not Kind.HEADING:
            return None
        level = self._level(paragraph, text)
        self._path = [(above, name) for above, name in self._path if above < level]
        self._path.append((level, text))
        return [name for _, name in self._path]

    def _level(self, paragraph: Paragraph, text: str) -> int:
        numbered = _NUMBERED.match(text)
        if numbered:
            return numbered[1].count(".") + 1
        if plain(text) in TOP or BACK.fullmatch(plain(text)):
            return 1
        return self._ranks.get(paragraph.style, 2)

    def _find_title(self) -> Paragraph | None:
        """The largest text in the upper part of the first pages; as a rule that is of the first."""
        first = [p for p in self._paragraphs if p.page == 1]
        large = [p for p in first if p.kind is Kind.HEADING and p.style.size >= 1.1 * self._body.size]
        large = [p for p in large if not _LETTERSPACED.search(" ".join(p.texts))]
        if not large:
            return None
        largest = max(p.style.size for p in large)
        return next(p for p in large if p.style.size >= largest - 0.05)


def _ranked(styles: Sequence[Style], top: Style | None) -> dict[Style, int]:
    """Levels by how text is set: larger over smaller, bold over plain, upright over italic."""
    ordered = sorted(set(styles), key=lambda style: (-style.size, not style.is_bold, style.is_italic))
    start = ordered.index(top) if top is not None and top in ordered else 0
    return {style: min(max(number - start, 0) + 1, 6) for number, style in enumerate(ordered)}
