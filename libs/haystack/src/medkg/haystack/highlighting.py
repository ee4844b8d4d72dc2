"""Where a passage says what was asked: the words that share a stem with a word of the question."""

import re
import unicodedata
from functools import lru_cache
from itertools import islice
from typing import Final

from medkg.haystack.terms import MAX_TERM, STOP_WORDS, stem

MAX_HIGHLIGHTS: Final = 100
_WORD = re.compile(r"[^\W_]+")
_MAX_QUERY_WORDS = 64

Span = tuple[int, int]


def highlights(text: str, query: str) -> tuple[Span, ...]:
    """Offsets ``[start, end)`` into ``text``, in order, of the words that answer the query; at most 100.

    Plain offsets and no markup: whoever shows the text escapes it in their own way.
    """
    wanted = set(list(dict.fromkeys(_stems(query)))[:_MAX_QUERY_WORDS])
    if not wanted:
        return ()
    answering = {word for word in set(_WORD.findall(text)) if _folded_stem(word[:MAX_TERM]) in wanted}
    if not answering:
        return ()
    found = (match.span() for match in _WORD.finditer(text) if match.group() in answering)
    return tuple(islice(found, MAX_HIGHLIGHTS))


def _stems(query: str) -> list[str]:
    words = _WORD.findall(query)
    telling = [word for word in words if word.casefold() not in STOP_WORDS] or words
    return [_folded_stem(word[:MAX_TERM]) for word in telling]


@lru_cache(maxsize=50_000)  # the words of a page: folding each anew took 3 ms of a search
def _folded_stem(word: str) -> str:
    """Case and accents aside, as SQLite's tokenizer reads it."""
    folded = unicodedata.normalize("NFKD", word.casefold())
    return stem("".join(character for character in folded if not unicodedata.combining(character)))
