"""Rerankers: a second, slower look at the best passages."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import httpx
import msgspec

from medkg.contracts.errors import ContractError, ResourceUnavailableError

RERANKED: Final = "rerank"
_MAX_ANSWER_BYTES = 1024 * 1024


class Reranker(Protocol):
    """Reads the question together with each passage. ``name`` says which model it is."""

    @property
    def name(self) -> str: ...

    async def scores(self, query: str, texts: Sequence[str]) -> list[float]:
        """One finite score for each text, higher is better.

        Raises:
            ContractError: the model gave something else.
            ResourceUnavailableError: it does not answer now.
        """
        ...


class _Result(msgspec.Struct):
    index: int
    relevance_score: float


class _Answer(msgspec.Struct):
    results: list[_Result]


@dataclass(frozen=True, slots=True)
class ServedReranker:
    """A cross-encoder behind ``POST /v1/rerank`` (vLLM, and servers of the same form). The client is the caller's."""

    client: httpx.AsyncClient
    served_model: str

    @property
    def name(self) -> str:
        return f"rerank:{self.served_model}"

    async def scores(self, query: str, texts: Sequence[str]) -> list[float]:
        body = {"model": self.served_model, "query": query, "documents": list(texts)}
        try:
            response = await self.client.post("v1/rerank", json=body)
        except httpx.HTTPError as error:
            raise ResourceUnavailableError(f"reranking with {self.name}: {type(error).__name__}: {error}") from error
        if response.status_code != 200:
            raise ResourceUnavailableError(f"reranking with {self.name}: status {response.status_code}")
        if len(response.content) > _MAX_ANSWER_BYTES:
            raise ContractError(f"reranking with {self.name}: the answer has {len(response.content)} bytes")
        try:
            results = msgspec.json.decode(response.content, type=_Answer).results
        except msgspec.DecodeError as error:
            raise ContractError(f"reranking with {self.name}: the answer cannot be read: {error}") from error
        by_index = {result.index: result.relevance_score for result in results}
        if set(by_index) != set(range(len(texts))) or not all(map(math.isfinite, by_index.values())):
            raise ContractError(f"reranking with {self.name}: {len(texts)} texts were sent, not each has a score")
        return [by_index[index] for index in range(len(texts))]
