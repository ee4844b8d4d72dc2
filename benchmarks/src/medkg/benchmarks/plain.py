"""The stages of a pipeline called one after another in a plain loop: no Kafka, no ledger, no message, no JSON.

What the fleet is held against: its results must be the same, and its CPU little more. Run as a program it does that for
a folder of real records and prints its CPU time:

    python -m medkg.benchmarks.plain --database postgresql://… --data DIR samples/trials samples/articles
"""

import argparse
import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from inspect import isawaitable
from pathlib import Path
from typing import Any

from medkg.contracts.context import Metadata, StageContext
from medkg.contracts.document import AdapterRequest, Document, IngestPage, RawPayload
from medkg.contracts.errors import MedkgError
from medkg.contracts.ids import document_id, stable_id
from medkg.contracts.implementation import Host
from medkg.contracts.stages import STAGE_CONTRACTS, StageType
from medkg.contracts.topology import StageDefinition, Topology
from medkg.runtime.blobs import open_blobs
from medkg.runtime.registry import OpenStages, installed
from medkg.runtime.topologies import TopologyLoader, default_topologies_dir
from medkg.storage.engine import migrate, open_engine

_PAGE = 100


@dataclass(frozen=True, slots=True)
class PlainResult:
    """What became of one record: what each stage made of it, by kind of artefact; or why a stage refused it."""

    doc_id: str
    made: Mapping[str, Any]
    refusal: str = ""  # the error's code


@dataclass(frozen=True, slots=True)
class PlainLoop:
    """The open stages of a pipeline without branches, gates or ``when``, in their order."""

    stages: Sequence[tuple[StageDefinition, Any]]
    cpu_seconds: dict[str, float] = field(default_factory=dict)  # spent in each stage so far

    async def run(self, tenant: str, paths: Sequence[str]) -> AsyncIterator[PlainResult]:
        """Every record of the files source, whole, before the next one. Records that cannot be read are left out."""
        ingest, cursor = self.stages[0][1], ""
        while True:
            request = AdapterRequest("files", {"paths": list(paths)}, cursor, _PAGE)
            page: IngestPage = await self._call("ingest", ingest, StageContext(tenant, "", "plain"), request)
            for payload in page.payloads:
                yield await self._document(tenant, payload)
            if not page.next_cursor:
                return
            cursor = page.next_cursor

    async def _document(self, tenant: str, payload: RawPayload) -> PlainResult:
        doc_id = document_id(tenant, payload.source, payload.source_id)
        metadata: Metadata = {"source": payload.source, "source_id": payload.source_id, **payload.metadata}
        made: dict[str, Any] = {"payload": payload}
        for definition, stage in self.stages[1:]:
            contract = STAGE_CONTRACTS[definition.type]
            key = stable_id("plain", tenant, doc_id, definition.name)
            ctx = StageContext(tenant, doc_id, "plain", metadata, content_key=key, revision=1)
            try:
                output = await self._call(definition.type.service, stage, ctx, made[contract.consumes])
            except MedkgError as error:
                return PlainResult(doc_id, made, error.code)
            if isinstance(output, Document):
                metadata = metadata | {"kind": output.kind} | output.metadata
            made[contract.produces] = output
        return PlainResult(doc_id, made)

    async def _call(self, service: str, stage: Any, ctx: StageContext, value: object) -> Any:
        before = time.process_time()
        try:
            output = stage.execute(ctx, value)
            return await output if isawaitable(output) else output
        finally:
            self.cpu_seconds[service] = self.cpu_seconds.get(service, 0.0) + time.process_time() - before


@asynccontextmanager
async def plain_loop(topology: Topology, host: Host) -> AsyncIterator[PlainLoop]:
    """Open the implementations that a pipeline names, as a worker would, until the block is left."""
    async with AsyncExitStack() as stack:
        opened = []
        for definition in topology.stages:
            if not isinstance(definition, StageDefinition) or definition.when or len(definition.depends_on) > 1:
                raise ValueError(f"{topology.name}: {definition.name} is more than a stage after another")
            stages = await stack.enter_async_context(OpenStages(installed(definition.type), host))
            opened.append((definition, (await stages.get(definition)).stage))
        if opened[0][0].type is not StageType.INGEST:
            raise ValueError(f"{topology.name} does not begin with ingest")
        yield PlainLoop(opened)


async def measure(database: str, data: Path, paths: Sequence[str], passes: int) -> dict[str, Any]:
    """CPU of this process for so many passes over the records, after one to warm up. Each pass is another tenant's."""
    engine = open_engine(database)
    await migrate(engine)
    await engine.dispose()
    host = Host(data, open_blobs("memory:"), database)  # none of these stages stores a blob
    async with plain_loop(TopologyLoader(default_topologies_dir()).get("auto"), host) as loop:
        documents, cpu, wall = 0, 0.0, 0.0
        for number in range(passes + 1):
            if number == 1:
                cpu, wall = time.process_time(), time.perf_counter()
                loop.cpu_seconds.clear()
            completed = {result.doc_id async for result in loop.run(f"plain-{number}", paths) if not result.refusal}
            documents += len(completed) if number else 0
    return {
        "documents": documents,
        "cpu_seconds": time.process_time() - cpu,
        "stage_cpu_seconds": loop.cpu_seconds,
        "seconds": time.perf_counter() - wall,
    }


def main() -> None:
    """Measure and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--database", required=True)
    parser.add_argument("--data", type=Path, required=True, help="folder of the index")
    parser.add_argument("--passes", type=int, default=5)
    parser.add_argument("paths", nargs="+")
    asked = parser.parse_args()
    print(json.dumps(asyncio.run(measure(asked.database, asked.data, asked.paths, asked.passes))))


if __name__ == "__main__":
    main()
