"""The hashing embedder: vectors without a model, named as such.

Signed feature hashing (Weinberger et al. 2009, "Feature Hashing for Large Scale Multitask Learning") of words, of pairs
of neighbouring words and of the character n-grams of words (as in fastText, Bojanowski et al. 2017), with sublinear
term frequency. Texts are near each other where they share words or parts of words; it knows no synonyms. It is for
trying medkg out and for tests: a trained model finds far more.

The same text gives the same bytes on every machine: hashes are BLAKE2b, weights are integers small enough for all sums
to be exact, and the square root and the division at the end are correctly rounded by IEEE 754.
"""

import hashlib
import math
import re
import threading
import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from medkg.haystack.embedding import Embedded, TextKind, unit_rows

MODEL_PREFIX: Final = "hashing-"
_VERSION: Final = 1
_WORD = re.compile(r"[^\W_]+")
_MAX_WORD = 40  # characters of a word that are looked at: a DNA sequence must not fill the cache
_CACHED_WORDS = 30_000  # of about 600 bytes each
_ONE = 64  # integer weights: 64 stands for 1.0
_WORD_WEIGHT, _PAIR_WEIGHT, _GRAM_WEIGHT = 64, 32, 22
_GRAMS = (3, 4, 5)
_TF = np.array([0] + [round(_ONE * (1 + math.log(count))) for count in range(1, 1025)], dtype=np.int64)
_PAIR_FACTOR = np.uint64(0x9E3779B97F4A7C15)  # 2**64 divided by the golden ratio: spreads neighbouring values
_STOP_WORDS = frozenset(
    re.findall(
        r"\w+",
        """
        a about after all also an and any are as at be been before being between both but by can could did do
        does during each either for from further had has have having how however i if in into is it its may
        might more most must no nor not of on only or other our over same should so some such than that the
        their them then there these they this those through thus to under until up upon use used using very was
        we were what when where which while who whom whose why will with within without would you your
        """,
    )
)

Hashes = NDArray[np.uint64]


class HashingEmbedder:
    """Deterministic vectors of ``dimension`` numbers. Safe to call from several threads.

    A text without a single word (or whose features cancel out) gets the vector of one reserved feature: of unit length,
    equal for all such texts, near nothing else.
    """

    def __init__(self, dimension: int = 384) -> None:
        if not 32 <= dimension <= 8192:
            raise ValueError(f"the dimension of the hashing embedder must be 32 to 8192, not {dimension}")
        self.dimension = dimension
        self.model = f"{MODEL_PREFIX}{dimension}/{_VERSION}"
        self._words: dict[str, _Features] = {}
        self._lock = threading.Lock()
        self._nothing = self._project(np.array([_hash("\x00nothing")], dtype=np.uint64), np.array([_ONE]))

    @classmethod
    def of_model(cls, model: str) -> "HashingEmbedder | None":
        """The embedder that ``model`` names; None where it names none of this kind."""
        match = re.fullmatch(rf"{MODEL_PREFIX}(\d{{2,4}})/{_VERSION}", model)
        return cls(int(match[1])) if match and 32 <= int(match[1]) <= 8192 else None

    async def embed(self, texts: Sequence[str], kind: TextKind) -> Embedded:
        """Queries and passages are treated alike."""
        return self.vectors(texts, kind)

    def vectors(self, texts: Sequence[str], kind: TextKind) -> Embedded:
        """One row for each text."""
        rows = [self._sums(text) for text in texts]
        values = np.stack(rows) if rows else np.empty((0, self.dimension))
        return Embedded(unit_rows(values, len(texts), self.dimension, self.model))

    def _sums(self, text: str) -> NDArray[np.float64]:
        words = [word[:_MAX_WORD] for word in _WORD.findall(unicodedata.normalize("NFKC", text).casefold())]
        if not words:
            return self._nothing
        counts = Counter(words)
        known = {word: self._features(word) for word in counts}
        pairs = self._pairs(words, known)
        telling = [word for word in counts if word not in _STOP_WORDS] or list(counts)
        tf = _TF[np.minimum(np.array([counts[word] for word in telling]), len(_TF) - 1)]
        features = [known[word] for word in telling]
        weights = np.concatenate([f.weights for f in features]) * np.repeat(tf, [len(f.weights) for f in features])
        sums = self._project(np.concatenate([f.hashes for f in features]), weights) + pairs
        return sums if sums.any() else self._nothing

    def _pairs(self, words: list[str], known: dict[str, "_Features"]) -> NDArray[np.float64]:
        """Neighbouring words, unless both say nothing by themselves."""
        ids = np.array([known[word].word for word in words], dtype=np.uint64)
        content = np.array([word not in _STOP_WORDS for word in words])
        pairs = ((ids[:-1] * _PAIR_FACTOR) ^ ids[1:])[content[:-1] | content[1:]]
        found, counts = np.unique(pairs, return_counts=True)
        return self._project(found, _TF[np.minimum(counts, len(_TF) - 1)] * _PAIR_WEIGHT)

    def _project(self, features: Hashes, weights: NDArray[np.int64]) -> NDArray[np.float64]:
        # the highest bit is the sign, the others the place; sums of integers below 2**53 are exact in float64
        signs = 1 - 2 * (features >> np.uint64(63)).astype(np.int64)
        places = (features % np.uint64(self.dimension)).astype(np.int64)
        signed = (signs * weights).astype(np.float64)
        return np.bincount(places, weights=signed, minlength=self.dimension).astype(np.float64, copy=False)

    def _features(self, word: str) -> "_Features":
        found = self._words.get(word)
        if found is None:
            marked = f"<{word}>"
            grams = {marked[at : at + size] for size in _GRAMS for at in range(len(marked) - size + 1)} - {marked}
            own = _hash(marked)
            hashes = np.array([own, *sorted(map(_hash, grams))], dtype=np.uint64)
            found = _Features(own, hashes, np.array([_WORD_WEIGHT, *[_GRAM_WEIGHT] * len(grams)], dtype=np.int64))
            with self._lock:
                if len(self._words) >= _CACHED_WORDS:
                    self._words.clear()
                self._words[word] = found
        return found


class _Features(NamedTuple):
    """The hash of a word; the same and those of its character n-grams, its ends marked; and their weights."""

    word: int
    hashes: Hashes
    weights: NDArray[np.int64]


def _hash(feature: str) -> int:
    return int.from_bytes(hashlib.blake2b(feature.encode("utf-8", "replace"), digest_size=8).digest(), "little")
