"""`medkg evaluate`: a judged data set through a fleet of one's own, and how well each kind of search finds."""

import json
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from medkg.cli.evaluation import Evaluation, comparison, evaluate_dataset, write_results
from medkg.cli.evaluation_store import evaluation_store
from medkg.cli.exits import UsageProblem
from medkg.cli.index import DenseFlag, DenseName, StoreFlag, StoreName
from medkg.cli.session import JsonFlag, session_of
from medkg.cli.terminal import clean
from medkg.haystack.evaluation import MEASURES, read_beir
from medkg.haystack.models import read_spec

EXAMPLES = """\
[bold]Examples[/bold]
  medkg evaluate --dataset beir:scifact
  medkg evaluate --dataset beir:scifact --embedder '{"kind": "onnx", "folder": "/models/minilm"}' --out run-1
  medkg evaluate --dataset beir:scifact --store opensearch --out run-2 --against run-1 --json | jq .against

A fleet of its own indexes the data set; its searches are asked every judged question. In the folder of --out stand the
figures (evaluation.json), a plot (evaluation.svg) and the rankings in TREC's form (run-NAME.trec). In OpenSearch the
indexes have names of their own, and are deleted at the end unless --data keeps the fleet."""


def evaluate(
    ctx: typer.Context,
    dataset: Annotated[str, typer.Option("--dataset", metavar="beir:DIR", help="A data set in BEIR's form.")],
    split: Annotated[str, typer.Option("--split", help="Which judgements.")] = "test",
    embedder: Annotated[
        str, typer.Option("--embedder", metavar="JSON", help="The model of the vectors: hashing, onnx or openai.")
    ] = '{"kind": "hashing"}',
    max_tokens: Annotated[int, typer.Option("--max-tokens", min=16, max=8192, help="Of a passage.")] = 510,
    store: StoreFlag = StoreName.EMBEDDED,
    dense: DenseFlag = DenseName.FAISS,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where the results go.")] = Path("evaluation"),
    against: Annotated[
        Path | None, typer.Option("--against", metavar="DIR", help="An earlier --out to compare with.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", metavar="DIR", help="Keep the fleet's data here.", show_default="nowhere")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Measure how well the searches find, on judged questions."""
    session = session_of(ctx, as_json)
    kind, _, folder = dataset.partition(":")
    if kind != "beir" or not folder:
        raise UsageProblem(f"--dataset {clean(dataset)}: wanted is beir:DIR")
    try:
        given = json.loads(embedder)
    except ValueError as error:
        raise UsageProblem(f"--embedder is no JSON: {error}") from error
    judged = read_beir(Path(folder), split)
    spec = read_spec(given if isinstance(given, dict) else {"kind": given})
    kept = data or Path(tempfile.mkdtemp(prefix="medkg-evaluate-"))
    try:
        people = replace(session, out=session.people, as_json=False)
        with evaluation_store(store, dense, kept.absolute(), is_kept=data is not None) as at:
            found = evaluate_dataset(people, judged, spec, kept.absolute(), max_tokens, at)
    finally:
        if data is None:
            shutil.rmtree(kept, ignore_errors=True)
    compared = comparison(found, against) if against is not None else {}
    account = write_results(found, out, compared)
    session.show(_table(found, compared))
    session.show(Text(f"{out}/evaluation.json, evaluation.svg, run-*.trec", "dim"))
    if as_json:
        session.emit(account)


def _table(found: Evaluation, compared: dict[str, Any]) -> Table:
    table = Table(
        title=f"{found.dataset}: {found.documents} documents, {found.queries} questions, {found.model}, {found.store}"
    )
    for name in ("leg", *MEASURES, "p50 ms", "p95 ms", *(["change", "p"] if compared else [])):
        table.add_column(name, justify="left" if name == "leg" else "right")
    for name, leg in found.legs.items():
        row = [
            name,
            *(f"{leg.measures[measure]:.4f}" for measure in MEASURES),
            f"{leg.p50_ms:.1f}",
            f"{leg.p95_ms:.1f}",
        ]
        if compared:
            change = compared.get(name)
            row += [f"{change['change']:+.4f}", f"{change['p']:.4f}"] if change else ["", ""]
        table.add_row(*row)
    table.caption = f"indexed in {found.index_seconds:.0f} s, {found.index_bytes / 1e6:.1f} MB"
    return table
