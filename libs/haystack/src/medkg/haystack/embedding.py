"""What an embedder is, and the checks that every vector passes before it goes on."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from medkg.contracts.errors import ContractError

Matrix = NDArray[np.float32]


class TextKind(StrEnum):
    """What a text is to be found by, or for: some models put different words before the two."""

    PASSAGE = "passage"
    QUERY = "query"


@dataclass(frozen=True, slots=True)
class Embedded:
    """One row of unit length for each text; ``truncated`` counts the texts of which only the beginning was seen."""

    vectors: Matrix
    truncated: int = 0


class TextEmbedder(Protocol):
    """Turns texts into vectors. ``model`` names the model and its revision; equal names promise comparable vectors."""

    @property
    def model(self) -> str: ...

    @property
    def dimension(self) -> int: ...

    async def embed(self, texts: Sequence[str], kind: TextKind) -> Embedded:
        """Vectors of ``texts``, in order.

        Raises:
            ContractError: the model gave something that is not a usable vector.
            ResourceUnavailableError: a remote model does not answer now.
        """
        ...


class LocalEmbedder(Protocol):
    """An embedder that computes in the calling thread; callable from several."""

    @property
    def model(self) -> str: ...

    @property
    def dimension(self) -> int: ...

    def vectors(self, texts: Sequence[str], kind: TextKind) -> Embedded:
        """As :meth:`TextEmbedder.embed`."""
        ...


def unit_rows(values: NDArray[np.floating], rows: int, dimension: int, model: str) -> Matrix:
    """The rows scaled to length 1.

    Raises:
        ContractError: another shape than ``(rows, dimension)``, a value that is not finite, or a row of zeros.
    """
    if values.shape != (rows, dimension):
        raise ContractError(
            f"embedding with {model}: {rows} texts should give vectors of shape ({rows}, {dimension}), came back as "
            f"{values.shape}; is `dimension` that of the model?",
            model=model,
        )
    wide = values.astype(np.float64)
    lengths = np.sqrt(np.einsum("ij,ij->i", wide, wide))
    if not np.isfinite(lengths).all() or not lengths.all():
        row = int(np.flatnonzero(~np.isfinite(lengths) | (lengths == 0))[0])
        kind = "zeros only" if lengths[row] == 0 else "a value that is not finite"
        raise ContractError(f"embedding with {model}: the vector of text {row} holds {kind}", model=model, row=row)
    unit: Matrix = (wide / lengths[:, None]).astype("<f4")
    return unit
