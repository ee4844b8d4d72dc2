"""The example of the guide is run as it stands there."""

import re
from pathlib import Path

import pytest

from medkg.contracts.context import StageContext
from medkg.contracts.document import Chunk, EmbeddingBatch
from medkg.haystack.embedding import TextKind
from medkg.haystack.hashing import HashingEmbedder
from medkg.haystack.impacts import IMPACTS, impacts
from medkg.haystack.passage_database import store_path
from medkg.haystack.passage_store import PassageStore
from medkg.haystack.writes import prepare

GUIDE = Path(__file__).resolve().parents[3] / "docs" / "guides" / "retrieval.md"


def test_the_guides_pipeline_runs_and_is_read_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = re.findall(
        r"<!-- run as a test -->\n```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL
    )
    text, embedder = "Metformin lowers blood glucose.", HashingEmbedder()
    chunk = Chunk("c", "d", 0, text, ("Results",), (), 5, title="Diabetes", metadata={"source": "files", "year": 2020})
    batch = EmbeddingBatch(
        chunks=(chunk,),
        model=embedder.model,
        dimension=embedder.dimension,
        dense=embedder.vectors([text], TextKind.PASSAGE).vectors.tobytes(),
        sparse=(impacts(text, "Diabetes"),),
        sparse_model=IMPACTS,
    )
    store = PassageStore.open(store_path(tmp_path, "default"))
    store.write([prepare(StageContext("default", "d", "job", content_key="g", revision=1), batch)])
    store.close()
    names: dict[str, object] = {"data_dir": str(tmp_path)}
    exec(compile(example, str(GUIDE), "exec"), names)
    said = capsys.readouterr().out
    assert "Diabetes {'bm25': 1, 'dense': 1, 'sparse': 1}" in said
    assert "missing: {}" in said
    assert names["same"]
