"""`medkg index`: verify, compact and rebuild a search index. Works on the stores; no fleet is needed."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from medkg.cli.exits import Exit, NotFound
from medkg.cli.session import JsonFlag, Session, TenantFlag, session_of
from medkg.cli.terminal import clean, count

VERIFY_EXAMPLES = """\
[bold]Examples[/bold]
  medkg index verify
  medkg index verify --tenant acme --json | jq '.problems'
  medkg index verify --store opensearch --dense knn

Exit code 1 says that the index contradicts itself; rebuild it, or submit the documents again."""
COMPACT_EXAMPLES = """\
[bold]Examples[/bold]
  medkg index compact --dry-run
  medkg index compact --data /var/lib/medkg --tenant acme

Passages that writers have left who died are removed once they are ten minutes old."""
REBUILD_EXAMPLES = """\
[bold]Examples[/bold]
  medkg index rebuild --dry-run
  medkg index rebuild --store opensearch

Searches go on meanwhile. Writers wait: embedded for the whole time, with OpenSearch for the last documents."""
EXAMPLES = """\
[bold]Examples[/bold]
  medkg index verify
  medkg index compact --dry-run
  medkg index rebuild --store opensearch"""

app = typer.Typer(help="Verify, compact and rebuild a search index; needs no fleet.", epilog=EXAMPLES)

T = TypeVar("T")


class StoreName(StrEnum):
    EMBEDDED = "embedded"
    OPENSEARCH = "opensearch"


class DenseName(StrEnum):
    FAISS = "faiss"
    KNN = "knn"


StoreFlag = Annotated[
    StoreName, typer.Option("--store", help="Which store; opensearch is found by MEDKG_OPENSEARCH_URL and _INDEX_KEY.")
]
DenseFlag = Annotated[DenseName, typer.Option("--dense", help="Where the vectors beside OpenSearch are.")]
DataFlag = Annotated[Path, typer.Option("--data", metavar="DIR", help="The fleet's folder.", envvar="MEDKG_DATA_DIR")]
IndexFlag = Annotated[str, typer.Option("--index", metavar="NAME", help="Which index of the tenant.")]
DryRunFlag = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")]

_DATA = Path(".medkg")
_INDEX = "passages"


@app.command("verify", epilog=VERIFY_EXAMPLES)
def verify(
    ctx: typer.Context,
    tenant: TenantFlag = None,
    index: IndexFlag = _INDEX,
    store: StoreFlag = StoreName.EMBEDDED,
    dense: DenseFlag = DenseName.FAISS,
    data: DataFlag = _DATA,
    as_json: JsonFlag = False,
) -> None:
    """Read a whole index and say whether it agrees with itself. Changes nothing."""
    session = session_of(ctx, as_json)
    name = session.tenant(tenant)
    found = _run(store, dense, data, index, lambda upkeep: upkeep.verify(name, _progress(session)))
    if not found.exists:
        raise NotFound(f"tenant {clean(name)} has no index {index!r}", hint="is --data, or --store, the right one?")
    if as_json:
        session.emit(asdict(found))
    else:
        session.show(f"{count(found.documents, 'document')}, {count(found.passages, 'passage')}")
        if found.leftover_passages:
            left = count(found.leftover_passages, "passage")
            session.show(f"{left} left by writers that died; nobody sees them, `medkg index compact` removes them")
        for problem in found.problems:
            session.show(f"✗ {clean(problem)}", soft_wrap=True)
        if not found.problems:
            session.show("✓ the index agrees with itself")
    if found.problems:
        raise typer.Exit(Exit.FAILED)


@app.command("compact", epilog=COMPACT_EXAMPLES)
def compact(
    ctx: typer.Context,
    tenant: TenantFlag = None,
    index: IndexFlag = _INDEX,
    store: StoreFlag = StoreName.EMBEDDED,
    dense: DenseFlag = DenseName.FAISS,
    data: DataFlag = _DATA,
    dry_run: DryRunFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Remove what nobody sees, and make the FAISS segments anew without what was deleted."""
    session = session_of(ctx, as_json)
    name = session.tenant(tenant)
    done = _run(store, dense, data, index, lambda upkeep: upkeep.compact(name, _progress(session), dry_run=dry_run))
    if as_json:
        session.emit(asdict(done) | {"dry_run": dry_run})
        return
    passages, vectors = count(done.leftover_passages, "passage"), count(done.leftover_vectors, "write")
    session.show(f"{'would remove' if dry_run else 'removed'} {passages} and the vectors of {vectors}, left by writers")
    if done.bytes_before and not dry_run:
        session.show(f"{done.bytes_before / 1e6:.1f} MB on disk before, {done.bytes_after / 1e6:.1f} MB after")


@app.command("rebuild", epilog=REBUILD_EXAMPLES)
def rebuild(
    ctx: typer.Context,
    tenant: TenantFlag = None,
    index: IndexFlag = _INDEX,
    store: StoreFlag = StoreName.EMBEDDED,
    dense: DenseFlag = DenseName.FAISS,
    data: DataFlag = _DATA,
    dry_run: DryRunFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Make an index anew from its passages: what is derived, or with OpenSearch a new index behind the old alias."""
    session = session_of(ctx, as_json)
    name = session.tenant(tenant)
    done = _run(store, dense, data, index, lambda upkeep: upkeep.rebuild(name, _progress(session), dry_run=dry_run))
    if as_json:
        session.emit(asdict(done) | {"dry_run": dry_run})
        return
    what = f"{count(done.documents, 'document')}, {count(done.passages, 'passage')}"
    session.show(f"{'would rebuild' if dry_run else 'rebuilt'} {what}")


def _run(store: StoreName, dense: DenseName, data: Path, index: str, work: Callable[[Any], Awaitable[T]]) -> T:
    async def run() -> T:
        async with _upkeep(store, dense, data, index) as upkeep:
            return await work(upkeep)

    return asyncio.run(run())


@asynccontextmanager
async def _upkeep(store: StoreName, dense: DenseName, data: Path, index: str) -> AsyncIterator[Any]:
    """Opens the store; imported here, as it is much to import for the other commands."""
    if store is StoreName.EMBEDDED:
        from medkg.haystack.upkeep import EmbeddedUpkeep

        yield EmbeddedUpkeep(data, index)
        return
    from medkg.haystack.opensearch.settings import OpenSearchSettings, open_indexes
    from medkg.haystack.opensearch.upkeep import OpenSearchUpkeep
    from medkg.haystack.vectors.store import vector_store
    from medkg.runtime.blobs import open_blobs
    from medkg.runtime.settings import RuntimeSettings, from_environment

    is_knn = dense is DenseName.KNN
    async with open_indexes(from_environment(OpenSearchSettings), knn=is_knn) as indexes:
        if is_knn:
            yield OpenSearchUpkeep(indexes, index, None)
            return
        settings = from_environment(RuntimeSettings).model_copy(update={"data_dir": data})
        blobs = open_blobs(settings.blob_location, endpoint=settings.blobs_endpoint)
        yield OpenSearchUpkeep(indexes, index, vector_store(blobs, data))


def _progress(session: Session) -> Callable[[str], None]:
    """Progress goes to standard error, so that a pipe gets the result alone."""

    def say(text: str) -> None:
        session.err.print(f"  {clean(text)} …", style="dim", highlight=False)

    return say
