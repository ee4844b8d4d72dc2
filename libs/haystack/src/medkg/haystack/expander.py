"""The Haystack component of sparse expansion."""

from pathlib import Path
from typing import Any

from haystack import Document, component, default_to_dict
from medkg.haystack.impacts import impacts
from medkg.haystack.splade import OnnxSplade, SpladeSettings


@component
class HaystackSparseExpander:
    """Puts term weights beside each document, in ``meta["term_weights"]`` (term to weight).

    ``kind`` is ``impacts`` (corpus statistics, no model), ``splade`` (on a GPU) or ``splade-cpu``, both from a local
    ``folder``. Without a GPU ``splade`` fails as it is opened: nothing falls back on the CPU unasked.
    """

    def __init__(self, kind: str = "impacts", folder: str = "", max_tokens: int = 256) -> None:
        if kind not in ("impacts", "splade", "splade-cpu"):
            raise ValueError(f"kind must be impacts, splade or splade-cpu, not {kind!r}")
        self.kind, self.folder, self.max_tokens = kind, folder, max_tokens
        self._splade: OnnxSplade | None = None

    def to_dict(self) -> dict[str, Any]:
        """For a serialised Haystack pipeline."""
        return dict(default_to_dict(self, kind=self.kind, folder=self.folder, max_tokens=self.max_tokens))

    def warm_up(self) -> None:
        """Loads the model, once.

        Raises:
            GpuNotAvailable: ``splade`` without a GPU.
            ConfigurationError: there is no usable model in the folder.
        """
        if self.kind != "impacts" and self._splade is None:
            settings = SpladeSettings(Path(self.folder), self.max_tokens, on_gpu=self.kind == "splade")
            self._splade = OnnxSplade(settings)

    @component.output_types(documents=list[Document])
    def run(self, documents: list[Document]) -> dict[str, list[Document]]:
        """The same documents, each with its term weights; ``meta["title"]`` is read as the document's title."""
        self.warm_up()
        expanded = []
        for document in documents:
            text, title = document.content or "", str(document.meta.get("title", ""))
            if self._splade is not None:
                (vector,) = self._splade.vectors([f"{title}\n{text}" if title else text])
            else:
                vector = impacts(text, title)
            weights = dict(zip(vector.terms, vector.weights, strict=True))
            meta = {**document.meta, "term_weights": weights}
            expanded.append(Document(id=document.id, content=document.content, meta=meta, score=document.score))
        return {"documents": expanded}
