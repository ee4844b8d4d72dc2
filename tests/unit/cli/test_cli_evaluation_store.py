"""Where an evaluation has its index: nobody else's in OpenSearch, and the same again for a folder that is kept."""

import json
from pathlib import Path

import pytest

from medkg.cli import evaluation_store as stores
from medkg.cli.evaluation_store import EvaluationStore, evaluation_store
from medkg.cli.index import DenseName, StoreName
from medkg.contracts.errors import ResourceUnavailableError


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What OpenSearch is asked to do, for one that answers."""
    done: list[str] = []

    def at(settings: object, work: object) -> int:
        done.append(getattr(work, "__name__", ""))
        return 7

    monkeypatch.setattr(stores, "_at", at)
    return done


def opened(folder: Path, dense: DenseName = DenseName.FAISS, *, is_kept: bool = True) -> EvaluationStore:
    with evaluation_store(StoreName.OPENSEARCH, dense, folder, is_kept=is_kept) as store:
        return store


def test_names_in_opensearch_are_of_the_folder_alone_and_the_key_is_for_its_owner_to_read(
    tmp_path: Path, asked: list[str]
) -> None:
    first, again, other = opened(tmp_path / "a"), opened(tmp_path / "a"), opened(tmp_path / "b")
    names = ("MEDKG_OPENSEARCH_PREFIX", "MEDKG_OPENSEARCH_INDEX_KEY")
    assert [first.environment[name] for name in names] == [again.environment[name] for name in names]
    assert all(first.environment[name] != other.environment[name] for name in names)
    (file,) = (tmp_path / "a").glob("*.json")
    assert file.stat().st_mode & 0o077 == 0
    assert first.environment["MEDKG_OPENSEARCH_INDEX_KEY"] not in repr(first)


def test_the_gateway_searches_where_the_index_stage_writes(tmp_path: Path, asked: list[str]) -> None:
    for dense, address in {
        DenseName.FAISS: {"kind": "opensearch", "data_dir": str(tmp_path)},
        DenseName.KNN: {"kind": "opensearch"},
    }.items():
        store = opened(tmp_path, dense)
        assert (store.uses, store.options["dense"]) == ("opensearch", str(dense))
        assert json.loads(store.environment["MEDKG_SEARCH_STORE"]) == address
    embedded = evaluation_store(StoreName.EMBEDDED, DenseName.FAISS, tmp_path, is_kept=True)
    with embedded as store:
        assert (store.uses, store.options, store.environment) == ("embedded", {}, {})


def test_indexes_are_deleted_at_the_end_unless_the_fleet_is_kept(tmp_path: Path, asked: list[str]) -> None:
    opened(tmp_path, is_kept=True)
    assert asked == ["_answers"]
    with (
        pytest.raises(RuntimeError),
        evaluation_store(StoreName.OPENSEARCH, DenseName.KNN, tmp_path, is_kept=False) as store,
    ):
        assert store.size_bytes() == 7
        raise RuntimeError
    assert asked == ["_answers", "_answers", "_index_bytes", "_delete"]


def test_an_opensearch_that_does_not_answer_is_said_before_a_fleet_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDKG_OPENSEARCH_URL", "http://127.0.0.1:9")
    with pytest.raises(ResourceUnavailableError, match="make opensearch"):
        opened(tmp_path)
