"""Evaluating: a data set through a fleet of its own, every judged question to each kind of search, and the figures."""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Final

from medkg.cli.client import GatewayClient
from medkg.cli.evaluation_fleet import TENANT, evaluation_fleet, write_records
from medkg.cli.evaluation_plot import plot
from medkg.cli.evaluation_store import EvaluationStore
from medkg.cli.exits import CommandError
from medkg.cli.publishing import publish
from medkg.cli.selection import submission_of
from medkg.cli.session import Session
from medkg.cli.watching import watch_job
from medkg.contracts.errors import ConfigurationError
from medkg.haystack.evaluation import (
    Dataset,
    Judgements,
    Run,
    by_query,
    measured,
    percentile,
    read_run,
    significance,
    write_run,
)
from medkg.haystack.models import HashingSpec, OnnxSpec, OpenAISpec

FUSED: Final = "fused"
ASKED: Final = {"bm25": ("bm25",), "dense": ("dense",), "sparse": ("sparse",), FUSED: ("bm25", "dense", "sparse")}
_JOB_SECONDS = 7_200.0
_WARM_UP = 10  # questions before the measured ones: models are loaded, files are in memory
_DEPTH = 100


@dataclass(frozen=True, slots=True)
class LegFigures:
    """One kind of search, or the fused list. Times are those that the gateway says each answer took."""

    measures: dict[str, float]
    p50_ms: float
    p95_ms: float
    p95_ms_with_http: float


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What was measured, and the rankings it was measured on."""

    dataset: str
    documents: int
    queries: int
    model: str
    store: str
    index_seconds: float
    index_bytes: int
    legs: dict[str, LegFigures]
    runs: dict[str, Run]
    judgements: Judgements


@dataclass(frozen=True, slots=True)
class IndexedDataset:
    """A data set in a fleet's index. ``names``: of the files that were read, with the ids of their documents."""

    client: GatewayClient
    names: Mapping[str, str]
    seconds: float


@contextmanager
def indexed_dataset(
    session: Session,
    dataset: Dataset,
    spec: HashingSpec | OnnxSpec | OpenAISpec,
    data_dir: Path,
    max_tokens: int,
    store: EvaluationStore,
) -> Iterator[IndexedDataset]:
    """A fleet on ``data_dir`` that has indexed the data set, warm, and a client of its gateway.

    Raises:
        CommandError: the fleet did not start, or did not index every document.
    """
    names = write_records(dataset.records, data_dir / "records")
    with evaluation_fleet(data_dir, spec, max_tokens, store, session.clock) as fleet:
        show = replace(
            session, settings=session.settings.model_copy(update={"gateway": fleet.gateway_url, "tenant": TENANT})
        )
        began = time.perf_counter()
        selection = {"paths": [str(data_dir / "records")]}
        asked = submission_of(tenant_id=TENANT, source="files", selection=selection, pipeline="evaluation")
        with show.client() as client:
            job = watch_job(
                show, client, publish(fleet.broker, asked), timeout_seconds=_JOB_SECONDS, is_new=True, goes_on=False
            )
            if job.has_failures or job.counts.documents != len(dataset.records):
                raise CommandError(f"{job.counts.documents} of {len(dataset.records)} documents came; see {fleet.log}")
            store.catch_up()
            seconds = time.perf_counter() - began
            for query in list(dataset.queries.values())[:_WARM_UP]:
                client.search(query, TENANT, _DEPTH, by_document=True)
            yield IndexedDataset(client, names, seconds)


def evaluate_dataset(
    session: Session,
    dataset: Dataset,
    spec: HashingSpec | OnnxSpec | OpenAISpec,
    data_dir: Path,
    max_tokens: int,
    store: EvaluationStore,
) -> Evaluation:
    """Indexes the data set in a fleet on ``data_dir`` and asks every judged question, each kind of search by itself.

    Raises:
        CommandError: the fleet did not start, did not index every document, or left out a kind of search.
    """
    with indexed_dataset(session, dataset, spec, data_dir, max_tokens, store) as indexed:
        found = {name: _ask(indexed.client, dataset, legs, indexed.names) for name, legs in ASKED.items()}
    figures = {
        name: LegFigures(
            measured(run, dataset.judgements), percentile(took, 50), percentile(took, 95), percentile(waited, 95)
        )
        for name, (run, took, waited) in found.items()
    }
    return Evaluation(
        dataset=dataset.name,
        documents=len(dataset.records),
        queries=len(dataset.queries),
        model=f"{spec.kind} {spec.model_dump_json(exclude_defaults=True)}",
        store=store.name,
        index_seconds=round(indexed.seconds, 1),
        index_bytes=store.size_bytes(),
        legs=figures,
        runs={name: run for name, (run, _, _) in found.items()},
        judgements=dataset.judgements,
    )


def _ask(
    client: GatewayClient, dataset: Dataset, legs: tuple[str, ...], names: Mapping[str, str]
) -> tuple[Run, list[float], list[float]]:
    """The ranking of documents for every question, and how long each took: in the gateway, and with the way there."""
    run: Run = {}
    took: list[float] = []
    waited: list[float] = []
    for query_id, query in dataset.queries.items():
        began = time.perf_counter()
        answer = client.search(query, TENANT, _DEPTH, by_document=True, leg=list(legs)).value
        waited.append((time.perf_counter() - began) * 1000)
        took.append(answer.took_ms or 0.0)
        if answer.legs_missing:
            raise CommandError(
                f"asking {query!r}: {', '.join(answer.legs_missing)} did not answer; see the fleet's log"
            )
        # by rank: equal scores are in an order already
        run[query_id] = {names[PurePosixPath(hit.source_id or "").name]: 1.0 / hit.rank for hit in answer.hits}
    return run, took, waited


def comparison(found: Evaluation, folder: Path) -> dict[str, Any]:
    """Each ranking beside that of an earlier evaluation: the change in nDCG@10, and how probable it is by chance.

    Raises:
        ConfigurationError: there is no earlier evaluation of the same questions.
    """
    compared: dict[str, Any] = {}
    for name, run in found.runs.items():
        file = folder / f"run-{name}.trec"
        if not file.is_file():
            continue
        earlier = read_run(file)
        if set(earlier) - set(found.judgements):
            raise ConfigurationError(f"comparing with {folder}: it has other questions")
        ours, theirs = by_query(run, found.judgements), by_query(earlier, found.judgements)
        change = sum(ours.values()) / len(ours) - sum(theirs.values()) / len(theirs)
        compared[name] = {"change": round(change, 4), "p": round(significance(ours, theirs), 4)}
    if not compared:
        raise ConfigurationError(f"comparing with {folder}: there is no run-*.trec")
    return compared


def write_results(found: Evaluation, folder: Path, compared: dict[str, Any]) -> dict[str, Any]:
    """Writes figures, plot and rankings; gives the figures."""
    folder.mkdir(parents=True, exist_ok=True)
    account: dict[str, Any] = {
        "dataset": found.dataset,
        "documents": found.documents,
        "queries": found.queries,
        "model": found.model,
        "store": found.store,
        "index_seconds": found.index_seconds,
        "index_bytes": found.index_bytes,
        "legs": {name: asdict(leg) for name, leg in found.legs.items()},
    }
    if compared:
        account["against"] = compared
    (folder / "evaluation.json").write_text(json.dumps(account, indent=2) + "\n", encoding="utf-8")
    measures = {name: leg.measures for name, leg in found.legs.items()}
    (folder / "evaluation.svg").write_text(
        plot(f"{found.dataset}: {found.documents} documents, {found.store}", measures), encoding="utf-8"
    )
    for name, run in found.runs.items():
        write_run(run, folder / f"run-{name}.trec", f"medkg-{name}")
    return account
