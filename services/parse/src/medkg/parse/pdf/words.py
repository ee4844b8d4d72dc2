"""Mending words: hyphens at the end of lines, ligatures, soft hyphens."""

import re
from collections.abc import Iterable

HYPHEN = "\u00ad"
_LIGATURES = str.maketrans(
    {"ﬀ": "ff", "ﬁ": "fi", "ﬂ": "fl", "ﬃ": "ffi", "ﬄ": "ffl", "ﬅ": "st", "ﬆ": "st", "\u2010": "-", "\u2011": "-"}
)
_WORD = re.compile(r"[^\W\d_]+(?:-[^\W\d_]+)*")
_LAST = re.compile(r"([\w-]+)$")
_FIRST = re.compile(r"([\w-]+)")
# What stands before a hyphen that is part of the word, where the text itself does not show it.
_COMPOUNDING = frozenset(
    {"non", "self", "well", "high", "low", "long", "short", "single", "double", "two", "three", "four", "cross"}
    | {"follow", "multi", "half", "full", "open", "large", "small", "real", "time", "evidence", "decision", "post"}
)


class Vocabulary:
    """The words of a document, as far as they do not stand at the end of a line."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._words: set[str] = set()
        for line in lines:
            words = _WORD.findall(line.translate(_LIGATURES).lower())
            self._words.update(words[:-1] if line.endswith(("-", HYPHEN)) else words)

    def joins(self, before: str, after: str) -> bool:
        """Whether two halves of a word that a line's end has parted are one word; else the hyphen stays."""
        first, second = before.lower(), after.lower()
        if not second[:1].isalpha() or after[:1].isupper() or before[-1:].isdigit():
            return False
        if f"{first}{second}" in self._words:
            return True
        return f"{first}-{second}" not in self._words and first.rpartition("-")[2] not in _COMPOUNDING


def mended(lines: Iterable[str], vocabulary: Vocabulary) -> str:
    """Lines as running text."""
    text = ""
    for line in map(str.strip, lines):
        if line:
            text = _appended(text, line, vocabulary) if text else line
    return text.replace(HYPHEN, "").translate(_LIGATURES)


def _appended(text: str, line: str, vocabulary: Vocabulary) -> str:
    if not text.endswith((HYPHEN, "-", "\u2010")):
        return f"{text} {line}"
    stem = text[:-1]
    before, after = _LAST.search(stem[-80:]), _FIRST.match(line[:80])
    if before is None or after is None:
        return f"{text} {line}" if text.endswith((" -", " \u2010")) or before is None else f"{stem}-{line}"
    if vocabulary.joins(before[1].translate(_LIGATURES), after[1].translate(_LIGATURES)):
        return f"{stem}{line}"
    return f"{stem}-{line}"
