"""How well a ranking answers judged questions: data sets in BEIR form, measures, and whether a difference is chance.

Measures are those of ir_measures (the extra ``evaluate``), so that figures compare with published ones.
"""

import csv
import gzip
import importlib
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, cast

import numpy as np

from medkg.contracts.errors import ConfigurationError

MEASURES: Final = ("nDCG@10", "R@100", "RR")
_PERMUTATIONS = 10_000
_MAX_LINE = 10_000_000  # characters of one line of a data set

Run = dict[str, dict[str, float]]  # query id -> document id -> score
Judgements = dict[str, dict[str, int]]  # query id -> document id -> grade


@dataclass(frozen=True, slots=True)
class Record:
    """A document of a data set."""

    record_id: str
    title: str
    text: str


@dataclass(frozen=True, slots=True)
class Dataset:
    """A data set in BEIR form. ``queries`` are those that are judged."""

    name: str
    records: tuple[Record, ...]
    queries: dict[str, str]
    judgements: Judgements


def read_beir(folder: Path, split: str = "test") -> Dataset:
    """``corpus.jsonl``, ``queries.jsonl`` (either may be ``.gz``) and ``qrels/SPLIT.tsv`` or ``qrels_SPLIT.tsv``.

    Raises:
        ConfigurationError: a file is missing or cannot be read; the message names it and the line.
    """
    corpus, asked = (
        _one_of(folder, "corpus.jsonl", "corpus.jsonl.gz"),
        _one_of(folder, "queries.jsonl", "queries.jsonl.gz"),
    )
    judged = _one_of(folder, f"qrels/{split}.tsv", f"qrels_{split}.tsv")
    judgements: Judgements = defaultdict(dict)
    with judged.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            try:
                judgements[row["query-id"]][row["corpus-id"]] = int(row["score"])
            except (KeyError, TypeError, ValueError) as error:
                raise ConfigurationError(
                    f"reading {judged}: wanted are the columns query-id, corpus-id and score, found is {dict(row)}"
                ) from error
    records = tuple(Record(line["_id"], line.get("title", ""), line["text"]) for line in _lines(corpus))
    queries = {line["_id"]: line["text"] for line in _lines(asked) if line["_id"] in judgements}
    if not records or set(judgements) - set(queries):
        raise ConfigurationError(f"reading {folder}: no documents, or judged queries that {asked.name} does not have")
    return Dataset(folder.name, records, queries, dict(judgements))


def measured(run: Run, judgements: Judgements) -> dict[str, float]:
    """The mean of each of :data:`MEASURES` over all judged queries; one without an answer counts as nothing."""
    measures = _ir_measures()
    parsed = [measures.parse_measure(name) for name in MEASURES]
    found = measures.calc_aggregate(parsed, judgements, _every(run, judgements))
    return {str(measure): round(float(value), 4) for measure, value in found.items()}


def by_query(run: Run, judgements: Judgements, measure: str = MEASURES[0]) -> dict[str, float]:
    """The measure of each judged query."""
    measures = _ir_measures()
    values = dict.fromkeys(judgements, 0.0)
    parsed = measures.parse_measure(measure)
    values.update(
        {m.query_id: float(m.value) for m in measures.iter_calc([parsed], judgements, _every(run, judgements))}
    )
    return values


def significance(ours: Mapping[str, float], theirs: Mapping[str, float], seed: int = 0) -> float:
    """The probability of a mean difference as great as this by chance: a paired, two-sided randomisation test.

    10,000 random swaps (Smucker, Allan and Carterette 2007, "A Comparison of Statistical Significance Tests"); 1.0
    where there is no difference. The same seed gives the same number.

    Raises:
        ValueError: the two do not have the same queries.
    """
    if set(ours) != set(theirs):
        raise ValueError("two runs are compared on the same queries")
    differences = np.array([ours[query] - theirs[query] for query in sorted(ours)])
    seen = abs(differences.mean()) if len(differences) else 0.0
    signs = np.random.default_rng(seed).choice((-1.0, 1.0), size=(_PERMUTATIONS, len(differences)))
    # a tiny margin: sums in another order must not lose the case that equals what was seen
    as_great = int((np.abs(signs @ differences / max(len(differences), 1)) >= seen - 1e-12).sum())
    return (as_great + 1) / (_PERMUTATIONS + 1)


def write_run(run: Run, file: Path, tag: str) -> None:
    """In the form of TREC: ``query Q0 document rank score tag``."""
    with file.open("w", encoding="utf-8") as out:
        for query, scores in run.items():
            ordered = sorted(scores.items(), key=lambda item: (-item[1], item[0]))
            for rank, (document, score) in enumerate(ordered, 1):
                out.write(f"{query} Q0 {document} {rank} {score:.8f} {tag}\n")


def read_run(file: Path) -> Run:
    """What :func:`write_run` wrote.

    Raises:
        ConfigurationError: it is no such file.
    """
    run: Run = defaultdict(dict)
    try:
        with file.open(encoding="utf-8") as lines:
            for line in lines:
                query, _, document, _, score, _ = line.split()
                run[query][document] = float(score)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"reading the run {file}: {error}") from error
    return dict(run)


def percentile(values: Sequence[float], percent: float) -> float:
    """Of measured times; 0 without any."""
    return round(float(np.percentile(values, percent)), 2) if values else 0.0


def _every(run: Run, judgements: Judgements) -> Run:
    """An entry for each judged query: what a run does not answer would else be left out of the mean."""
    return {query: run.get(query) or {"": 0.0} for query in judgements}


def _ir_measures() -> Any:
    try:
        return importlib.import_module("ir_measures")
    except ImportError as error:
        raise ConfigurationError(
            "evaluating: ir_measures is not installed; install medkg-cli[evaluate] (uv sync --all-extras)"
        ) from error


def _one_of(folder: Path, *names: str) -> Path:
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise ConfigurationError(f"reading the data set {folder}: there is no {' and no '.join(names)}")


def _lines(file: Path) -> Iterator[dict[str, Any]]:
    with _opened(file) as lines:
        number = 0
        while line := lines.readline(_MAX_LINE):
            number += 1
            try:
                found = json.loads(line)
                if not isinstance(found["_id"], str) or not isinstance(found["text"], str):
                    raise TypeError("_id and text must be strings")
            except (ValueError, KeyError, TypeError) as error:
                raise ConfigurationError(f"reading {file}, line {number}: {error!r}") from error
            yield found


@contextmanager
def _opened(file: Path) -> Iterator[IO[bytes]]:
    with file.open("rb") as raw:
        if file.suffix != ".gz":
            yield raw
            return
        with gzip.GzipFile(fileobj=raw) as unpacked:
            yield cast(IO[bytes], unpacked)  # it reads bytes line by line, and lacks only what nobody asks here
