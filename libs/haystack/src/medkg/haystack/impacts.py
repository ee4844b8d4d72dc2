"""Sparse term weights without a model, named as such: the part of BM25 that one passage alone decides.

``weight = tf * (k1 + 1) / (tf + k1 * (1 - b + b * length / TYPICAL))`` (Robertson and Zaragoza 2009, "The Probabilistic
Relevance Framework", with a fixed typical length in place of the corpus average). How rare a term is belongs to the
corpus and is asked of the index when a query comes: a query's weights are inverse document frequencies.
"""

import math
import re
import unicodedata
from collections import Counter
from functools import lru_cache

from medkg.contracts.document import SparseVector

IMPACTS = "impacts/1"
_K1, _B = 1.2, 0.75
_TYPICAL = 150  # words in a passage of 256 word pieces
_MAX_TERMS = 512  # of a passage; the heaviest are kept
_MAX_TERM = 64  # characters
_TERM = re.compile(r"[^\W_]+(?:[-'\u2019/][^\W_]+)*")
_JOINT = re.compile(r"[-'\u2019/]")


def terms_of(text: str) -> list[str]:
    """The words of a text in lower case, plurals reduced; ``IL-6`` gives ``il-6`` beside ``il`` and ``6``."""
    terms: list[str] = []
    for whole in _TERM.findall(unicodedata.normalize("NFKC", text).casefold()):
        if whole.isalnum():
            terms.append(_singular(whole))
            continue
        parts = _JOINT.split(whole)
        terms.extend(map(_singular, parts))
        if len(parts) > 1 and len(whole) <= _MAX_TERM:
            terms.append("-".join(parts))
    return terms


def impacts(text: str) -> SparseVector:
    """The term weights of a passage, rounded to four places. A text without a word has none."""
    terms = terms_of(text)
    counts = Counter(terms)
    floor = _K1 * (1 - _B + _B * len(terms) / _TYPICAL)
    weight_of = {tf: round(tf * (_K1 + 1) / (tf + floor), 4) for tf in set(counts.values())}
    kept = list(counts)
    if len(kept) > _MAX_TERMS:
        kept = sorted(kept, key=lambda term: (-counts[term], term))[:_MAX_TERMS]
    # a passage so long that a weight rounds to nothing says nothing by that term
    kept = sorted(term for term in kept if weight_of[counts[term]] > 0)
    return SparseVector(tuple(kept), tuple([weight_of[counts[term]] for term in kept]))


def query_weight(passages: int, passages_with_term: int) -> float:
    """The inverse document frequency of a term, never negative."""
    return math.log(1 + (passages - passages_with_term + 0.5) / (passages_with_term + 0.5))


@lru_cache(maxsize=30_000)
def _singular(word: str) -> str:
    """Harman 1991, "How effective is suffixing?": the S stemmer."""
    word = word[:_MAX_TERM]
    if len(word) > 4 and word.endswith("ies") and not word.endswith(("eies", "aies")):
        return f"{word[:-3]}y"
    if len(word) > 3 and word.endswith("es") and not word.endswith(("aes", "ees", "oes")):
        return word[:-1]
    if len(word) > 3 and word.endswith("s") and not word.endswith(("us", "ss", "is")):
        return word[:-1]
    return word
