"""SPLADE for passages only ("inference-free", Geng et al. 2024): a question is its own word pieces, run by no model.

Passages are expanded when they are indexed, where a GPU may be; whoever asks needs the model's tokenizer alone. A word
piece of a question weighs what its rarity in the index says, as in BM25. For models that were trained to be used so.
"""

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medkg.contracts.document import SparseVector
from medkg.contracts.errors import ConfigurationError
from medkg.haystack.expansion import MAX_QUERY_TERMS
from medkg.haystack.impacts import query_weight
from medkg.haystack.splade import OnnxSplade, splade_revision
from medkg.haystack.stores import TermCounts


class PassageSplade:
    """A :class:`medkg.haystack.expansion.SparseExpander`. Without ``passages`` it can only expand questions.

    Raises:
        ConfigurationError: the extra ``onnx`` is not installed, or the folder holds no usable model.
    """

    def __init__(self, folder: Path, max_tokens: int, passages: OnnxSplade | None = None) -> None:
        self._passages = passages
        revision = splade_revision(folder)
        try:
            tokenizers = importlib.import_module("tokenizers")
            self._tokenizer: Any = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as error:
            raise ConfigurationError(f"opening the tokenizer of the SPLADE model in {folder}: {error}") from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self.model = f"splade-passages:{revision}-{max_tokens}"

    async def expand(self, texts: Sequence[str], titles: Sequence[str]) -> list[SparseVector]:
        """The term weights of passages. Raises ConfigurationError where only the tokenizer was opened."""
        if self._passages is None:
            raise ConfigurationError(f"expanding passages with {self.model}: only its tokenizer is opened here")
        return await self._passages.expand(texts, titles)

    def query_terms(self, query: str) -> list[str]:
        """Its word pieces, each once."""
        encoding = self._tokenizer.encode(query, add_special_tokens=False)
        return list(dict.fromkeys(encoding.tokens))[:MAX_QUERY_TERMS]

    async def expand_query(self, query: str, counts: TermCounts) -> dict[str, float]:
        """Weights by rarity; a piece that no passage has a weight for is left out."""
        return {term: query_weight(counts.passages, count) for term, count in counts.by_term.items()}
