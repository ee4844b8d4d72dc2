"""Words of a text as search terms: lower case, stemmed, compounds kept beside their parts."""

import re
import unicodedata
from functools import lru_cache
from typing import Final

import Stemmer

MAX_TERM: Final = 64  # characters
STOP_WORDS: Final = frozenset(
    re.findall(
        r"\w+",
        """
        a an and are as at be by can for from has have in is it its not of on or that the these this those to was were
        what when where which who will with
        """,
    )
)
_TERM = re.compile(r"[^\W_]+(?:[-'\u2019/][^\W_]+)*")
_JOINT = re.compile(r"[-'\u2019/]")
_PORTER = Stemmer.Stemmer("porter")


def terms_of(text: str) -> list[str]:
    """The words of a text in lower case, stemmed; ``IL-6`` gives ``il-6`` beside ``il`` and ``6``.

    Words that are in nearly every text are left out: they cost a long list each and decide nothing.
    """
    terms: list[str] = []
    for whole in _TERM.findall(unicodedata.normalize("NFKC", text).casefold()):
        if whole.isalnum():
            if whole not in STOP_WORDS:
                terms.append(stem(whole))
            continue
        parts = _JOINT.split(whole)
        terms.extend(stem(part) for part in parts if part not in STOP_WORDS)
        if len(whole) <= MAX_TERM:
            terms.append("-".join(parts))
    return terms


@lru_cache(maxsize=50_000)
def stem(word: str) -> str:
    """Porter 1980, "An algorithm for suffix stripping": the same stems as SQLite's ``porter`` tokenizer."""
    return str(_PORTER.stemWord(word[:MAX_TERM]))
