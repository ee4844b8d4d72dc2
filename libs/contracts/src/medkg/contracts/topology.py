"""A pipeline as data: a directed acyclic graph of stages and gates, and the policies its stages run under."""

import hashlib
import json
import re
from collections.abc import Mapping
from enum import StrEnum
from functools import cached_property
from types import MappingProxyType
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, model_validator
from pydantic_core import PydanticCustomError

from medkg.contracts.context import Metadata
from medkg.contracts.messages import PipelineRef
from medkg.contracts.stages import GATE_CONSUMES, STAGE_CONTRACTS, StageType

Scalar = str | int | float | bool

# Fields of the ledger that a gate may wait for, with the type of their values. The retries of one stage are
# ``retry_count_per_stage.STAGE``, a whole number.
LEDGER_FIELDS: Mapping[str, type[bool] | type[str]] = MappingProxyType(
    {
        "pdf_downloaded": bool,
        "pdf_ir_ready": bool,
        "pdf_ir_failed": bool,
        "post_pdf_started": bool,
        "current_stage": str,
        "pipeline_name": str,
        "pipeline_version": str,
    }
)
RETRY_COUNT_PREFIX = "retry_count_per_stage."

_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,3})?)(s|m|h|d)", re.ASCII)
_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


def read_duration(value: object) -> object:
    """``90s``, ``30m``, ``24h`` and ``7d`` as seconds; whatever else is given is handed back as it is."""
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match:
        return float(match[1]) * _UNIT_SECONDS[match[2]]
    if isinstance(value, str):
        raise PydanticCustomError("duration", "expected seconds, or a number with a unit such as 90s, 30m, 24h or 7d")
    return value


def _unique(items: tuple[str, ...]) -> tuple[str, ...]:
    for index, item in enumerate(items):
        if item in items[:index]:
            raise PydanticCustomError(
                "duplicate_item", "{item} stands here twice", {"index": index, "item": repr(item)}
            )
    return items


Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=63)]  # of a policy or an implementation
StageName = Annotated[str, Field(pattern=r"^[a-z_]+$", max_length=63)]
SourceName = Annotated[str, Field(pattern=r"^[a-z][a-z-]*$", max_length=63)]
StageNames = Annotated[
    tuple[StageName, ...], Field(max_length=100, json_schema_extra={"uniqueItems": True}), AfterValidator(_unique)
]
SourceNames = Annotated[
    tuple[SourceName, ...], Field(max_length=100, json_schema_extra={"uniqueItems": True}), AfterValidator(_unique)
]
Seconds = Annotated[float, BeforeValidator(read_duration, json_schema_input_type=float | str)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, allow_inf_nan=False)


class When(_Model):
    """A predicate on document metadata; every condition that is given must hold. A missing field is unequal to all.

    Values are compared with their kind: ``true`` is not ``1``, and ``"1"`` is neither.
    """

    field: Annotated[str, Field(min_length=1, max_length=128)]
    equals: Scalar | None = None
    not_equals: Scalar | None = None
    one_of: Annotated[tuple[Scalar, ...], Field(min_length=1, max_length=1_000)] | None = None
    at_least: float | None = None
    at_most: float | None = None
    exists: bool | None = None

    @model_validator(mode="after")
    def _can_hold(self) -> Self:
        if self.model_fields_set <= {"field"}:
            raise PydanticCustomError(
                "no_condition", "'when' has no condition: {conditions}", {"conditions": _CONDITIONS}
            )
        if self.at_least is not None and self.at_most is not None and self.at_least > self.at_most:
            raise PydanticCustomError("empty_range", "'when' can never hold: at_least is greater than at_most")
        return self

    def holds(self, metadata: Metadata) -> bool:
        """Whether a document with this metadata passes."""
        value = metadata.get(self.field)
        number = value if isinstance(value, int | float) and not isinstance(value, bool) else None
        return (
            (self.equals is None or _is_same(value, self.equals))
            and (self.not_equals is None or not _is_same(value, self.not_equals))
            and (self.one_of is None or any(_is_same(value, item) for item in self.one_of))
            and (self.at_least is None or (number is not None and number >= self.at_least))
            and (self.at_most is None or (number is not None and number <= self.at_most))
            and (self.exists is None or (value is not None) == self.exists)
        )


_CONDITIONS = "give equals, not_equals, one_of, at_least, at_most or exists"


def _is_same(value: Scalar | None, expected: Scalar) -> bool:
    return value == expected and isinstance(value, bool) == isinstance(expected, bool)


class Checks(_Model):
    """Thresholds of a ValidateStage; a document that misses one is refused with ``quality_too_low``."""

    min_characters: Annotated[int, Field(ge=0)] = 1
    max_characters: Annotated[int, Field(ge=1)] | None = None
    min_sections: Annotated[int, Field(ge=0)] = 1
    require_title: bool = False
    max_replacement_ratio: Annotated[float, Field(ge=0, le=1)] = 0.01  # U+FFFD and control characters to all characters
    min_letter_ratio: Annotated[float, Field(ge=0, le=1)] = 0.3  # letters of any script to all non-space characters
    max_repeated_line_ratio: Annotated[float, Field(ge=0, le=1)] = 0.9

    @model_validator(mode="after")
    def _can_pass(self) -> Self:
        if self.max_characters is not None and self.max_characters < self.min_characters:
            raise PydanticCustomError("empty_range", "no document can pass: max_characters is less than min_characters")
        return self


class OnTimeout(StrEnum):
    FAIL = "fail"
    SKIP = "skip"
    RELEASE = "release"


class GateCondition(_Model):
    """What a gate waits for: a field of :data:`LEDGER_FIELDS`, or ``retry_count_per_stage.STAGE``, and its value."""

    ledger_field: Annotated[str, Field(min_length=1, max_length=63)]
    equals: Scalar = True


class StageDefinition(_Model):
    """One stage of a pipeline. ``uses`` names an implementation, ``with`` its settings.

    A document for which ``when`` does not hold passes the stage over. ``tolerates`` (of a stage that joins branches)
    are those of ``depends_on`` whose branch may fail: the stage then runs without what that branch would have made.
    """

    name: StageName
    type: Literal[
        StageType.INGEST,
        StageType.DOWNLOAD,
        StageType.PARSE,
        StageType.VALIDATE,
        StageType.CHUNK,
        StageType.EMBED,
        StageType.INDEX,
        StageType.EXTRACT,
        StageType.KG,
    ]
    policy: Name = "default"
    depends_on: StageNames = ()
    tolerates: StageNames = ()
    uses: Name | None = None
    with_: dict[str, JsonValue] = Field(default_factory=dict, alias="with")
    when: When | None = None
    checks: Checks | None = None


class GateDefinition(_Model):
    """A place where a document waits until a ledger field has a value.

    When it has, the document goes on to every stage directly after the gate; ``resume_stage`` is one of them, named for
    people and the ledger. ``timeout`` is in seconds, or written like ``24h``. Without ``depends_on`` a gate follows the
    stage above it.
    """

    name: StageName
    type: Literal[StageType.GATE]
    condition: GateCondition
    resume_stage: StageName
    timeout_seconds: Annotated[Seconds, Field(gt=0, le=30 * 86_400)] = Field(default=86_400, alias="timeout")
    on_timeout: OnTimeout = OnTimeout.FAIL
    depends_on: StageNames = ()


Node = Annotated[StageDefinition | GateDefinition, Field(discriminator="type")]


class Topology(_Model):
    """A pipeline. Its digest is the SHA-256 of its canonical JSON: sorted keys, defaults written out, no white space.

    The model holds what can be said of each field; that the stages make a graph is checked where topologies are read
    (:func:`medkg.contracts.topology_source.read_topology`).
    """

    version: Annotated[str, Field(pattern=r"^[0-9]{1,9}\.[0-9]{1,9}$")]
    name: Annotated[str, Field(pattern=r"^[a-z-]+$", max_length=63)]
    description: Annotated[str, Field(max_length=4_096)] = ""
    applicable_sources: SourceNames = ()
    stages: tuple[Node, ...] = Field(min_length=1, max_length=100)

    @classmethod
    def from_canonical_json(cls, text: str) -> Self:
        """A pinned topology, as it was stored.

        It keeps the given text as its canonical JSON, and so its digest, whatever this release would write; a field
        that this release does not know is ignored, so that old and new workers can share a job during an upgrade.

        Raises:
            pydantic.ValidationError: not a topology.
        """
        topology = cls.model_validate_json(text, extra="ignore")
        topology.__dict__["canonical_json"] = text  # where cached_property keeps its value
        return topology

    @cached_property
    def canonical_json(self) -> str:
        content = self.model_dump(mode="json", by_alias=True)
        return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)

    @cached_property
    def digest(self) -> str:
        return hashlib.sha256(self.canonical_json.encode()).hexdigest()

    @property
    def ref(self) -> PipelineRef:
        return PipelineRef(self.name, self.version, self.digest)

    @cached_property
    def by_name(self) -> dict[str, StageDefinition | GateDefinition]:
        return {stage.name: stage for stage in self.stages}

    @cached_property
    def predecessors(self) -> dict[str, tuple[str, ...]]:
        """Stage -> the stages it depends on. A gate without ``depends_on`` follows the stage above it."""
        before: dict[str, tuple[str, ...]] = {}
        above = ""
        for stage in self.stages:
            implied = (above,) if isinstance(stage, GateDefinition) and not stage.depends_on and above else ()
            before[stage.name] = stage.depends_on or implied
            above = stage.name
        return before

    @cached_property
    def successors(self) -> dict[str, tuple[str, ...]]:
        """Stage -> the stages that depend on it, in the order of the file."""
        after: dict[str, list[str]] = {stage.name: [] for stage in self.stages}
        for stage in self.stages:
            for name in self.predecessors[stage.name]:
                if name in after:
                    after[name].append(stage.name)
        return {name: tuple(names) for name, names in after.items()}

    @cached_property
    def joins(self) -> frozenset[str]:
        """Stages with more than one predecessor: a document waits at the router until it has come from all of them."""
        return frozenset(name for name, before in self.predecessors.items() if len(before) > 1)

    @cached_property
    def kinds_needed(self) -> dict[str, frozenset[str]]:
        """Stage -> the kinds of artefact that it or a stage after it reads."""
        return {stage.name: self._kinds_needed_from(stage.name) for stage in self.stages}

    @property
    def entry(self) -> StageDefinition:
        """The stage a job begins with."""
        return next(s for s in self.stages if isinstance(s, StageDefinition) and not self.predecessors[s.name])

    @cached_property
    def leaves(self) -> tuple[str, ...]:
        """Stages that nothing depends on: a document is done when all of them are."""
        return tuple(stage.name for stage in self.stages if not self.successors[stage.name])

    def _kinds_needed_from(self, name: str) -> frozenset[str]:
        seen: set[str] = set()
        ahead = [name]
        while ahead:
            current = ahead.pop()
            if current not in seen:
                seen.add(current)
                ahead.extend(self.successors[current])
        stages = (self.by_name[each] for each in seen)
        return frozenset(reads_of(stage) for stage in stages) - {""}


def reads_of(stage: StageDefinition | GateDefinition) -> str:
    """The kind of artefact that a stage takes; of a gate what it asks another service to work on, or nothing."""
    if isinstance(stage, GateDefinition):
        return GATE_CONSUMES.get(stage.condition.ledger_field, "")
    return STAGE_CONTRACTS[stage.type].consumes


class Backoff(StrEnum):
    NONE = "none"
    LINEAR = "linear"
    EXPONENTIAL = "exponential"


class Breaker(_Model):
    """``failures`` in a row open the breaker; after ``reset_seconds`` one document is let through to see."""

    failures: Annotated[int, Field(ge=3, le=10)]
    reset_seconds: Annotated[float, Field(ge=30, le=600)]


class Policy(_Model):
    """How a stage is retried, timed out, broken off and slowed down.

    ``attempts`` is how often a run that failed is tried again: with 3 a document is run at most four times. The wait
    before a retry is ``initial_seconds`` (linear: times its number, exponential: doubled each time), at most
    ``max_seconds``, plus a random part of up to ``jitter_seconds``. ``timeout_seconds`` bounds one run.
    """

    attempts: Annotated[int, Field(ge=1, le=10)] = 3
    backoff: Backoff = Backoff.EXPONENTIAL
    initial_seconds: Annotated[float, Field(ge=0.1, le=10)] = 0.5
    max_seconds: Annotated[float, Field(ge=1, le=300)] = 30
    jitter_seconds: Annotated[float, Field(ge=0, le=5)] = 0.5
    timeout_seconds: Annotated[float, Field(ge=1, le=600)] = 30
    breaker: Breaker | None = None
    rate_per_second: Annotated[float, Field(ge=0.1, le=100)] | None = None

    @model_validator(mode="after")
    def _grows(self) -> Self:
        if self.initial_seconds > self.max_seconds:
            raise PydanticCustomError("empty_range", "initial_seconds is greater than max_seconds")
        return self


class Policies(_Model):
    """The content of ``resilience.yaml``: policies by name."""

    policies: Annotated[dict[Name, Policy], Field(min_length=1, max_length=100)]
