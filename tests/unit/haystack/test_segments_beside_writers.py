"""Building a segment takes minutes in a large store: writers must not notice."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tests.integration.stores_kit import document

from medkg.haystack import segments
from medkg.haystack.graphs import Built, build
from medkg.haystack.passage_store import PassageStore
from medkg.haystack.segments import build_segment, read_manifest, segment_folder


def test_the_write_ahead_log_can_be_emptied_while_an_index_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "passages.sqlite"
    store = PassageStore.open(path)
    store.write([document(f"d{number}", "word one", "word two") for number in range(5)])
    checkpoints: list[tuple[int, ...]] = []

    def build_beside_a_writer(vectors: Any) -> Built:
        store.write([document("later", "word three")])
        with closing(sqlite3.connect(path)) as connection:
            checkpoints.append(connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone())
        return build(vectors)

    monkeypatch.setattr(segments, "build", build_beside_a_writer)
    assert build_segment(path, 1)
    assert checkpoints == [(0, 0, 0)]  # nobody was in the way, and nothing was left
    with closing(sqlite3.connect(path)) as connection:
        (store_id,) = connection.execute("SELECT value FROM store WHERE key = 'store_id'").fetchone()
    manifest = read_manifest(segment_folder(path), store_id)
    assert manifest is not None
    assert [segment.rows for segment in manifest.segments] == [10]  # what came later is tail
    store.close()
