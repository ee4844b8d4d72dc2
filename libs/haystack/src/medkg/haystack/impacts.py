"""Sparse term weights without a model, named as such: the part of BM25 that one passage alone decides.

``weight = tf * (k1 + 1) / (tf + k1 * (1 - b + b * length / TYPICAL))`` (Robertson and Zaragoza 2009, "The Probabilistic
Relevance Framework", with a fixed typical length in place of the corpus average). A word of the title counts as often
as :data:`TITLE_WEIGHT` words of the text (BM25F, section 3.6 there). How rare a term is belongs to the corpus and is
asked of the index when a query comes: a query's weights are inverse document frequencies.
"""

import math
from collections import Counter
from typing import Final

from medkg.contracts.document import SparseVector
from medkg.haystack.terms import terms_of

__all__ = ["IMPACTS", "TITLE_WEIGHT", "impacts", "query_weight", "terms_of"]

IMPACTS: Final = "impacts/2"
TITLE_WEIGHT: Final = 3  # chosen on the training queries of SciFact: docs/decisions/0027
_K1, _B = 1.2, 0.75
_TYPICAL = 150  # terms in a passage of 256 word pieces with its title, counted as above
_MAX_TERMS = 512  # of a passage; the most frequent are kept


def impacts(text: str, title: str = "") -> SparseVector:
    """The term weights of a passage under its document's title, rounded to four places; none without a word."""
    counts = Counter(terms_of(text))
    for term, count in Counter(terms_of(title)).items():
        counts[term] += TITLE_WEIGHT * count
    floor = _K1 * (1 - _B + _B * counts.total() / _TYPICAL)
    weight_of = {tf: round(tf * (_K1 + 1) / (tf + floor), 4) for tf in set(counts.values())}
    kept = list(counts)
    if len(kept) > _MAX_TERMS:
        kept = sorted(kept, key=lambda term: (-counts[term], term))[:_MAX_TERMS]
    # a passage so long that a weight rounds to nothing says nothing by that term
    kept = sorted(term for term in kept if weight_of[counts[term]] > 0)
    return SparseVector(tuple(kept), tuple([weight_of[counts[term]] for term in kept]))


def query_weight(passages: int, passages_with_term: int) -> float:
    """The inverse document frequency of a term, never negative."""
    return math.log(1 + max(passages - passages_with_term + 0.5, 0.0) / (passages_with_term + 0.5))
