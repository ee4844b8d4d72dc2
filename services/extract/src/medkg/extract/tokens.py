"""Names and texts as comparable tokens: a word is the same in another case, in the plural, or without its accents."""

import re
import unicodedata
from dataclasses import dataclass, field
from functools import lru_cache

# A word with its possessive; a hyphen inside a word ("COVID-19", "low-molecular-weight"), which is as good as a space;
# any other mark, which a name only spans where it has that mark itself.
_TOKEN = re.compile(
    r"(?P<word>[^\W_]+(?:['\u2019][sS]\b)?)|(?P<hyphen>(?<=\w)[-\u2010\u2011\u2013](?=\w))|(?P<mark>\S)"
)


@dataclass(slots=True)
class Tokens:
    """The words and marks of a text in order, as columns: a text is read token by token, and there are many.

    ``keys`` are equal for words that mean the same; ``exact`` keep their case; ``[starts, ends)`` are code points.
    """

    keys: list[str] = field(default_factory=list)
    exact: list[str] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)


def tokens(text: str) -> Tokens:
    """The words and marks of a text. Linear in its length."""
    found = Tokens()
    for match in _TOKEN.finditer(text):
        group, word = match.lastgroup, match.group()
        if group != "hyphen":
            found.keys.append(fold_word(word) if group == "word" else word)
            found.exact.append(_without_plural(word) if word[-1] == "s" else word)
            found.starts.append(match.start())
            found.ends.append(match.end())
    return found


def name_key(name: str) -> str:
    """A name for comparing: its folded words and marks. Empty where there is nothing to compare."""
    return " ".join(tokens(name).keys)


@lru_cache(maxsize=65_536)
def fold_word(word: str) -> str:
    """A word without case, accents, possessive and plural; both sides of a comparison go through it."""
    if word[-2:-1] in {"'", "\u2019"}:
        word = word[:-2]
    if not word.isascii():
        decomposed = unicodedata.normalize("NFKD", word)
        word = "".join(character for character in decomposed if not unicodedata.combining(character))
        word = word or "\N{REPLACEMENT CHARACTER}"  # a key is never empty
    word = word.casefold()
    if len(word) <= 3 or word.endswith(("ss", "us", "is")) or not word.endswith("s"):
        return word
    return word[:-3] + "y" if word.endswith("ies") else word[:-1]


def _without_plural(word: str) -> str:
    return word[:-1] if len(word) > 2 and word[:-1].isupper() else word  # "NSAIDs"
