"""A judged data set through a whole fleet, from the command line to the figures."""

import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

OPENSEARCH = pytest.mark.opensearch
SUBJECTS = ("asthma", "sepsis", "diabetes", "stroke", "migraine", "psoriasis")


def dataset(folder: Path) -> Path:
    said = "Treatment {n} reduced {subject} in adults."
    records = [
        {"_id": f"{subject}-{n}", "title": f"Trial {n} of {subject}", "text": said.format(n=n, subject=subject)}
        for subject in SUBJECTS
        for n in range(3)
    ]
    folder.mkdir()
    (folder / "corpus.jsonl").write_text("\n".join(map(json.dumps, records)))
    queries = [{"_id": subject, "text": f"does a treatment help against {subject}"} for subject in SUBJECTS]
    (folder / "queries.jsonl").write_text("\n".join(map(json.dumps, queries)))
    judged = [f"{subject}\t{subject}-{n}\t1" for subject in SUBJECTS for n in range(3)]
    (folder / "qrels_test.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *judged]) + "\n")
    return folder


@pytest.fixture(params=["embedded", pytest.param("faiss", marks=OPENSEARCH), pytest.param("knn", marks=OPENSEARCH)])
def store(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """The flags that name each store."""
    if request.param == "embedded":
        return ()
    monkeypatch.setenv("MEDKG_OPENSEARCH_URL", request.getfixturevalue("opensearch"))
    return ("--store", "opensearch", "--dense", request.param)


def evaluate(tmp_path: Path, *arguments: str) -> dict[str, object]:
    flags = ["--dataset", f"beir:{tmp_path / 'set'}", "--json", *arguments]
    command = [sys.executable, "-m", "medkg.cli", "evaluate", *flags]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    account: dict[str, object] = json.loads(done.stdout)
    return account


@pytest.mark.timeout(150)
def test_a_data_set_is_indexed_by_a_fleet_and_every_leg_is_measured(tmp_path: Path, store: tuple[str, ...]) -> None:
    dataset(tmp_path / "set")
    there = names_of_indexes() if store else []
    account = evaluate(tmp_path, "--out", "first", *store)
    assert account["index_bytes"]
    assert (account["documents"], account["queries"]) == (18, 6)
    legs = json.loads((tmp_path / "first" / "evaluation.json").read_text())["legs"]
    assert set(legs) == {"bm25", "dense", "sparse", "fused"}
    assert all(legs[leg]["measures"]["R@100"] == 1.0 for leg in legs)
    assert legs["bm25"]["measures"]["nDCG@10"] == legs["fused"]["measures"]["nDCG@10"] == 1.0
    assert legs["fused"]["p95_ms"] > 0
    assert len(list((tmp_path / "first").glob("run-*.trec"))) == 4
    if store:  # nothing is left in it
        assert names_of_indexes() == there


def names_of_indexes() -> list[str]:
    url = os.environ["MEDKG_OPENSEARCH_URL"]
    with urllib.request.urlopen(f"{url}/_cat/indices/evaluation*?format=json", timeout=30) as answer:
        return sorted(entry["index"] for entry in json.load(answer))
