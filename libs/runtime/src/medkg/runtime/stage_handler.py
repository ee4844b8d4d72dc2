"""The handler of a stage service: one request in, the messages that follow it out.

Take, open inputs, run, store the artefact; the worker then publishes and stores the offset. What fails becomes a dead
letter and a ``stage.failed`` event; only an unavailable resource of our own is raised, and the worker waits for it.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, get_origin

import msgspec

from medkg.contracts import topics
from medkg.contracts.cloudevents import Message
from medkg.contracts.context import Metadata, StageContext
from medkg.contracts.document import Document, GraphWriteReceipt, IndexReceipt, StoredFile, WriteOutcome
from medkg.contracts.errors import (
    ContractError,
    MedkgError,
    PipelineConfigError,
    ResourceUnavailableError,
    StageCrashedError,
)
from medkg.contracts.messages import Artefact, StageRequest
from medkg.contracts.pdf import FILE_KEY, adopted
from medkg.contracts.stages import STAGE_CONTRACTS, StageType, encode_artefact
from medkg.contracts.topology import Policies, Policy, StageDefinition, Topology
from medkg.runtime.artefacts import Artefacts, artefact_path, content_key
from medkg.runtime.fan_out import page_messages
from medkg.runtime.memory import ByteBudget
from medkg.runtime.metrics import StageMetrics
from medkg.runtime.outcome import Done, Narrator, dead_letter, failure_of
from medkg.runtime.records import Record
from medkg.runtime.registry import OpenStage, OpenStages
from medkg.runtime.requests import read_request
from medkg.runtime.resilience.attempts import Attempt, Parked, run_under_policy
from medkg.runtime.resilience.failure_limits import FailureLimits
from medkg.runtime.resilience.guards import Guard, Guards
from medkg.runtime.resilience.limits import Share
from medkg.runtime.resilience.stopping import WorkerStopped
from medkg.runtime.resilience.threads import StageThreads
from medkg.runtime.starts import Starts
from medkg.runtime.topologies import PinnedTopologies

log = logging.getLogger(__name__)

_KEPT = 1_000  # plans and meters that are looked up by name: names come from topologies, of which there may be many
_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)  # whatever a decoder says of hostile bytes


@dataclass(frozen=True, slots=True)
class StageServices:
    """What a stage handler works with. ``say`` publishes without waiting: for events that only inform.

    ``threads`` run stages that are plain functions; ``one_thread`` those that compute in Python.
    A run that lasts less than ``tell_starts_seconds`` is told of by its end alone.
    """

    stages: OpenStages
    topologies: PinnedTopologies
    policies: Callable[[], Policies]
    artefacts: Artefacts
    budget: ByteBudget
    threads: StageThreads
    one_thread: StageThreads
    guards: Guards
    limits: FailureLimits
    metrics: StageMetrics
    say: Callable[[Message], None]
    park_seconds: float = 5.0
    tell_starts_seconds: float = 0.0


class _Plan(NamedTuple):
    """What the pinned topology of a job asks of this service at one stage. The same for all its documents."""

    topology: Topology
    definition: StageDefinition
    opened: OpenStage


class StageHandler:
    """Runs one kind of stage. Safe for any number of concurrent calls."""

    def __init__(self, stage_type: StageType, worker: str, services: StageServices) -> None:
        self._stage_type = stage_type
        self._contract = STAGE_CONTRACTS[stage_type]
        self._decode_input: Callable[[bytes], Any] = msgspec.json.Decoder(self._contract.consumes_type).decode
        self._decode_output: Callable[[bytes], Any] = msgspec.json.Decoder(self._contract.produces_type).decode
        self._worker = worker
        self._source = f"medkg/{stage_type.service}"
        self._services = services
        self._starts = Starts(services.say, services.tell_starts_seconds)
        self._resumed: dict[str, Attempt] = {}  # requests that wait for a resource, and how far they had come
        self._plans: dict[tuple[str, str], _Plan] = {}
        self._observed: dict[tuple[str, str], tuple[Callable[[], None], Callable[[float], None]]] = {}

    @property
    def share(self) -> Share:
        """The part of the fleet-wide rates that this replica takes; whoever assigns partitions sets it."""
        return self._services.guards.share

    async def handle(self, records: Sequence[Record]) -> list[Message]:
        """The messages that follow these requests.

        Raises:
            ResourceUnavailableError: the blob store, or a store that the stage writes to, does not answer.
        """
        messages: list[Message] = []
        for record in records:
            messages += await self._handle_one(record)
        return messages

    def refuse(self, records: Sequence[Record], error: MedkgError) -> list[Message]:
        """Dead letters for requests whose results cannot be published."""
        messages: list[Message] = []
        for record in records:
            narrator = self._read(record)
            if isinstance(narrator, Narrator):
                messages += narrator.failed(failure_of(error), record, 0.0)
            else:
                messages += narrator
        return messages

    async def _handle_one(self, record: Record) -> list[Message]:
        narrator = self._read(record)
        if not isinstance(narrator, Narrator):
            return narrator
        self._starts.begin(narrator)
        begun = time.perf_counter()
        try:
            taken = narrator.request.artefacts.get(self._contract.consumes)
            if taken is None or taken.is_inline:
                messages, outcome = await self._run(narrator, begun)
            else:  # a claim-check: what lies in the store may be large
                async with self._services.budget.hold(taken.size_bytes):
                    begun = time.perf_counter()
                    messages, outcome = await self._run(narrator, begun)
        except (ResourceUnavailableError, WorkerStopped):
            raise
        except Parked as parked:
            return self._park(narrator, parked)
        except MedkgError as error:
            return self._give_up(narrator, record, error, begun)
        except Exception as error:  # noqa: BLE001  a bug of ours: the document is given up, and the next one goes on
            crash = StageCrashedError(f"handling {narrator.request.stage!r}: {type(error).__name__}: {error}")
            crash.__cause__ = error
            return self._give_up(narrator, record, crash, begun)
        finally:
            self._starts.end(narrator)
        count, observe = self._observed.get((narrator.request.stage, outcome)) or self._observe(
            narrator.request.stage, outcome
        )
        count()
        observe(time.perf_counter() - begun)
        self._services.limits.succeeded()
        return messages

    def _read(self, record: Record) -> Narrator | list[Message]:
        """What a record asks for, or the dead letter of one that cannot be read."""
        try:
            cause, request = read_request(record)
        except ContractError as fault:
            log.warning("%s at %s", fault.message, record.position)
            self._services.limits.failed(fault)
            self._services.metrics.dead_letters.labels("", fault.code).inc()
            return [dead_letter(record, failure_of(fault), self._worker)]
        return Narrator(self._worker, self._source, self._stage_type.value, cause, request)

    def _park(self, narrator: Narrator, parked: Parked) -> list[Message]:
        """The gate-router keeps the document until it is due."""
        request, failure = narrator.request, failure_of(parked.error)
        due = time.time_ns() // 1_000_000 + round(parked.seconds * 1_000)
        following = msgspec.structs.replace(request, attempt=parked.attempt, not_before_ms=due)
        messages = [narrator.follow(topics.GATE, following)]
        if parked.attempt > request.attempt:
            self._services.metrics.retries.labels(request.stage, failure.code).inc()
            messages.append(narrator.retrying(failure, parked.attempt, parked.seconds))
        return messages

    def _give_up(self, narrator: Narrator, record: Record, error: MedkgError, begun: float) -> list[Message]:
        request = narrator.request
        self._services.limits.failed(error)
        log.warning(
            "%s: %s",
            error.code,
            error.message,
            extra={"job_id": request.job_id, "doc_id": request.doc_id, "stage": request.stage},
            exc_info=error if error.code == "stage_crashed" else None,
        )
        self._services.metrics.runs.labels(request.stage, error.disposition.value).inc()
        self._services.metrics.dead_letters.labels(request.stage, error.code).inc()
        topology = self._services.topologies.remembered(request.pipeline.digest)
        return narrator.failed(failure_of(error), record, _milliseconds(begun), topology)

    def _observe(self, stage: str, outcome: str) -> tuple[Callable[[], None], Callable[[float], None]]:
        """The meters of runs that end so; looking one up by its labels costs more than to move it."""
        metrics = self._services.metrics
        found = metrics.runs.labels(stage, outcome).inc, metrics.seconds.labels(stage).observe
        if len(self._observed) < _KEPT:
            self._observed[stage, outcome] = found
        return found

    async def _plan(self, request: StageRequest) -> _Plan:
        topology = await self._services.topologies.get(request.pipeline.digest)
        definition = self._definition(topology, request.stage)
        plan = _Plan(topology, definition, await self._services.stages.get(definition))
        if len(self._plans) >= _KEPT:
            self._plans.clear()
        self._plans[request.pipeline.digest, request.stage] = plan
        return plan

    async def _run(self, narrator: Narrator, begun: float) -> tuple[list[Message], str]:
        request = narrator.request
        plan = self._plans.get((request.pipeline.digest, request.stage)) or await self._plan(request)
        topology, definition, opened = plan
        guard = self._guard(definition, opened)
        taken = self._input_of(request)
        if self._stage_type is StageType.INGEST:
            page = await self._execute(narrator, opened, guard, taken, _context(request, ""))
            asked = await self._services.artefacts.open(taken)
            store = self._services.artefacts
            messages = await page_messages(narrator, topology, page, asked, store, lambda: _milliseconds(begun))
            return messages, "completed"
        done = await self._produce(narrator, opened, guard, taken, begun)
        return narrator.completed(topology, done), "reused" if done.reused else "completed"

    async def _produce(
        self, narrator: Narrator, opened: OpenStage, guard: Guard, taken: Artefact, begun: float
    ) -> Done:
        """Run a stage on a document, or find that it has been run before."""
        request, kind = narrator.request, self._contract.produces
        key = content_key(
            request.tenant_id,
            request.doc_id,
            opened.identity,
            opened.options,
            {taken.kind: taken.sha256},
            request.metadata,
        )
        is_kept, is_broken = opened.implementation.memoised and not self._contract.is_sink, False
        path = artefact_path(request.tenant_id, key)
        if is_kept and (known := await self._services.artefacts.find(kind, path)) is not None:
            artefact, data = known
            try:
                return self._done(artefact, self._decode_output(data), begun, reused=True)
            except _UNREADABLE:
                log.warning("artefact %s cannot be read and is made again", path)
                is_broken = True
        output = await self._execute(narrator, opened, guard, taken, _context(request, key))
        data = _encoded(output, opened)
        inline = None if is_kept else self._services.artefacts.inline(kind, data)
        made = inline or await self._services.artefacts.make(kind, data, path, is_kept=is_kept, replaces=is_broken)
        return self._done(made, output, begun, reused=_was_there(output))

    def _done(self, artefact: Artefact, output: object, begun: float, *, reused: bool) -> Done:
        added: Metadata = {}
        if isinstance(output, Document):
            added = {"kind": output.kind, **output.metadata}
        elif isinstance(output, StoredFile):
            added = {FILE_KEY: output.key}  # for a parser that reads the file itself
        return Done((artefact,), added, _milliseconds(begun), reused)

    async def _execute(
        self, narrator: Narrator, opened: OpenStage, guard: Guard, taken: Artefact, ctx: StageContext
    ) -> Any:
        data = taken.inline if isinstance(taken.inline, msgspec.Raw) else await self._services.artefacts.open(taken)
        try:
            value = self._decode_input(data)
        except _UNREADABLE as error:
            raise ContractError(f"reading {taken.kind} of {narrator.request.subject}: {error}") from error
        if isinstance(value, Document):
            value = adopted(value, ctx)

        def say_retry(error: MedkgError, attempt: int, seconds: float) -> None:
            self._services.metrics.retries.labels(narrator.request.stage, error.code).inc()
            self._starts.tell(narrator)
            self._services.say(narrator.retrying(failure_of(error), attempt, seconds))

        services, asked = self._services, narrator.cause.id
        at = (self._resumed.pop(asked, None) if self._resumed else None) or Attempt(narrator.request.attempt)
        threads = services.one_thread if opened.implementation.in_python else services.threads
        try:
            output = await run_under_policy(
                opened, guard, threads, ctx, value, say_retry, at=at, park_seconds=services.park_seconds
            )
        except ResourceUnavailableError:
            if len(self._resumed) >= _KEPT:  # of partitions that were taken away meanwhile
                self._resumed.clear()
            self._resumed[asked] = at
            raise
        if not _is_instance(output, self._contract.produces_type):
            expected = getattr(self._contract.produces_type, "__name__", str(self._contract.produces_type))
            raise ContractError(
                f"running {opened.implementation.name}: returned {type(output).__name__}, expected {expected}"
            )
        return output

    def _definition(self, topology: Topology, stage: str) -> StageDefinition:
        definition = topology.by_name.get(stage)
        if not isinstance(definition, StageDefinition) or definition.type is not self._stage_type:
            raise PipelineConfigError(
                f"running stage {stage!r}: pipeline {topology.name} {topology.version} "
                f"has no {self._stage_type.value} of that name"
            )
        return definition

    def _guard(self, definition: StageDefinition, opened: OpenStage) -> Guard:
        return self._services.guards.of_stage(opened, definition.policy, self._policy(definition))

    def _policy(self, definition: StageDefinition) -> Policy:
        policies = self._services.policies().policies
        policy = policies.get(definition.policy)
        if policy is None:
            raise PipelineConfigError(
                f"running stage {definition.name!r}: policy {definition.policy!r} is not in resilience.yaml "
                f"(known: {', '.join(sorted(policies))})"
            )
        return policy

    def _input_of(self, request: StageRequest) -> Artefact:
        taken = request.artefacts.get(self._contract.consumes)
        if taken is None:
            raise ContractError(
                f"running stage {request.stage!r} of {request.subject}: "
                f"the message carries no {self._contract.consumes!r}"
            )
        return taken


def _context(request: StageRequest, key: str) -> StageContext:
    return StageContext(
        tenant_id=request.tenant_id,
        doc_id=request.doc_id,
        correlation_id=request.job_id,
        metadata=request.metadata,
        content_key=key,
        revision=request.revision,
    )


def _encoded(output: object, opened: OpenStage) -> bytes:
    try:
        return encode_artefact(output)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:  # half of a surrogate pair, mostly
        raise ContractError(
            f"running {opened.implementation.name}: its output cannot be written as JSON: {error}"
        ) from error


def _was_there(output: object) -> bool:
    """Whether a sink found that there was nothing to write, or a download nothing to fetch."""
    kinds = IndexReceipt | GraphWriteReceipt | StoredFile
    return isinstance(output, kinds) and output.outcome is not WriteOutcome.WRITTEN


def _is_instance(output: object, expected: type) -> bool:
    return isinstance(output, get_origin(expected) or expected)  # list[Chunk] -> list


def _milliseconds(begun: float) -> float:
    return round((time.perf_counter() - begun) * 1000, 3)
