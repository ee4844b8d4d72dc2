"""What can be measured of a document in any language and script, in time linear in its text.

Measured is the text that a passage could be made of: not the bibliography, not attached vocabulary.
"""

import unicodedata
from collections import Counter
from collections.abc import Callable

from medkg.contracts.document import Document, SectionKind

_APART = frozenset((SectionKind.REFERENCES, SectionKind.TERMS))
_LINE_CONTROLS = frozenset("\t\n\r")
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def measures_of(document: Document) -> dict[str, float]:
    """The measures by name.

    ``characters`` and ``sections`` count text and the sections that have any; ``has_title`` is 1 or 0;
    ``replacement_ratio`` is U+FFFD, control characters and lone surrogates to all characters;
    ``letter_ratio`` is letters and combining marks of any script to all characters but white space;
    ``repeated_line_ratio`` is lines that stood there before to all lines; a block without line breaks is one.
    """
    sections = [section for section in document.sections if section.blocks and section.kind not in _APART]
    texts = [block.text for section in sections for block in section.blocks]
    # A text has few different characters: each is classified once, however often it occurs.
    characters: Counter[str] = Counter()
    for text in texts:
        characters.update(text)
    lines = [line for text in texts for line in text.split("\n") if line]
    return {
        "characters": float(characters.total()),
        "sections": float(len(sections)),
        "has_title": float(bool(document.title.strip())),
        "replacement_ratio": _ratio(_count(characters, _is_damage), characters.total()),
        "letter_ratio": _ratio(_count(characters, _is_letter), _count(characters, _is_visible)),
        "repeated_line_ratio": _ratio(len(lines) - len(set(lines)), len(lines)),
    }


def _count(characters: Counter[str], belongs: Callable[[str], bool]) -> int:
    return sum(count for character, count in characters.items() if belongs(character))


def _is_damage(character: str) -> bool:
    is_control = unicodedata.category(character) in {"Cc", "Cs"} and character not in _LINE_CONTROLS
    return is_control or character == _REPLACEMENT


def _is_letter(character: str) -> bool:
    return unicodedata.category(character)[0] in "LM"


def _is_visible(character: str) -> bool:
    return not character.isspace()


def _ratio(part: int, whole: int) -> float:
    """Rounded, so that a report reads well: four digits tell any two documents apart that should be."""
    return round(part / whole, 4) if whole else 0.0
