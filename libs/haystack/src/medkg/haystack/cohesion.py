"""Where the subject of a text changes: places at which the sentences before and after are less alike than around it.

After Hearst 1997, "TextTiling: Segmenting Text into Multi-paragraph Subtopic Passages", with sentence embeddings in
place of word counts: the depth of a valley in the similarity of neighbouring blocks decides.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from medkg.haystack.embedding import LocalEmbedder, TextKind
from medkg.haystack.packing import Unit


@dataclass(frozen=True, slots=True)
class Cohesion:
    """How readily a subject counts as changed; see :class:`medkg.haystack.splitter.SemanticSplitter`."""

    min_tokens: int = 64
    window: int = 2
    sensitivity: float = 0.5

    def __post_init__(self) -> None:
        if self.min_tokens < 0 or not 1 <= self.window <= 16:
            raise ValueError(f"min_tokens must be at least 0, window 1 to 16: {self.min_tokens}, {self.window}")


def subject_changes(
    text: str, units: Sequence[Unit], embedder: LocalEmbedder, count: Callable[[str], int], cohesion: Cohesion
) -> list[Unit]:
    """The units, those that begin a new subject marked as starting a passage. Units that may not overlap (table rows,
    fields) are never parted from each other by this."""
    if len(units) < 3:  # two sentences have no valley between them
        return list(units)
    vectors = embedder.vectors([text[unit.start : unit.end] for unit in units], TextKind.PASSAGE).vectors
    depths = valley_depths(gap_similarities(vectors, cohesion.window))
    limit = float(depths.mean() + cohesion.sensitivity * depths.std())
    sizes = [count(text[unit.start : unit.end]) for unit in units]
    left = sum(sizes)
    since = 0
    marked = [units[0]]
    for number in range(1, len(units)):
        since += sizes[number - 1]
        left -= sizes[number - 1]
        unit = units[number]
        is_prose = unit.can_overlap or units[number - 1].can_overlap
        is_boundary = is_prose and depths[number - 1] > limit and min(since, left) >= cohesion.min_tokens
        marked.append(replace(unit, starts_passage=True) if is_boundary else unit)
        since = 0 if is_boundary else since
    return marked


def gap_similarities(vectors: NDArray[np.float32], window: int) -> NDArray[np.float64]:
    """For each gap between two neighbouring rows the cosine of the sums of up to ``window`` rows on either side."""
    sums = np.vstack([np.zeros((1, vectors.shape[1])), np.cumsum(vectors.astype(np.float64), axis=0)])
    gaps = np.arange(1, len(vectors))
    before = sums[gaps] - sums[np.maximum(gaps - window, 0)]
    after = sums[np.minimum(gaps + window, len(vectors))] - sums[gaps]
    lengths = np.linalg.norm(before, axis=1) * np.linalg.norm(after, axis=1)
    # rounded: a cumulated sum has other last digits than a sum of its own, and a boundary must not hang on them
    products = np.einsum("ij,ij->i", before, after)
    cosines: NDArray[np.float64] = np.divide(products, lengths, out=np.zeros_like(products), where=lengths > 0)
    return cosines.round(9)


def valley_depths(similarities: NDArray[np.float64]) -> NDArray[np.float64]:
    """How far the similarity climbs from each gap to the peaks on its left and right; 0 where it is no valley."""
    depths = np.zeros(len(similarities))
    left_peak = _climbs(similarities)
    right_peak = _climbs(similarities[::-1])[::-1]
    for gap, similarity in enumerate(similarities):
        is_valley = (gap == 0 or similarities[gap - 1] >= similarity) and (
            gap == len(similarities) - 1 or similarities[gap + 1] >= similarity
        )
        if is_valley:
            depths[gap] = (left_peak[gap] - similarity) + (right_peak[gap] - similarity)
    return depths


def _climbs(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The top of the climb that leads backwards from each value."""
    tops = values.copy()
    for place in range(1, len(values)):
        if values[place - 1] >= values[place]:
            tops[place] = tops[place - 1]
    return tops
