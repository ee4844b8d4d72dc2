"""A pipeline as data: a directed acyclic graph of stages and gates, and the policies its stages run under."""

import hashlib
import json
from enum import StrEnum
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from medkg.contracts.context import Metadata
from medkg.contracts.messages import PipelineRef
from medkg.contracts.stages import StageType

StageName = Annotated[str, Field(pattern=r"^[a-z_]+$", max_length=63)]
Scalar = str | int | float | bool


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class When(_Model):
    """A predicate on document metadata; every condition that is given must hold. A missing field is unequal to all."""

    field: Annotated[str, Field(min_length=1, max_length=128)]
    equals: Scalar | None = None
    not_equals: Scalar | None = None
    one_of: tuple[Scalar, ...] | None = None
    at_least: float | None = None
    at_most: float | None = None
    exists: bool | None = None

    def holds(self, metadata: Metadata) -> bool:
        value = metadata.get(self.field)
        number = value if isinstance(value, int | float) and not isinstance(value, bool) else None
        return (
            (self.equals is None or value == self.equals)
            and (self.not_equals is None or value != self.not_equals)
            and (self.one_of is None or value in self.one_of)
            and (self.at_least is None or (number is not None and number >= self.at_least))
            and (self.at_most is None or (number is not None and number <= self.at_most))
            and (self.exists is None or (value is not None) == self.exists)
        )


class Checks(_Model):
    """Thresholds of a ValidateStage; a document that misses one is refused with ``quality_too_low``."""

    min_characters: Annotated[int, Field(ge=0)] = 1
    max_characters: Annotated[int, Field(ge=1)] | None = None
    min_sections: Annotated[int, Field(ge=0)] = 1
    require_title: bool = False
    max_replacement_ratio: Annotated[float, Field(ge=0, le=1)] = 0.01  # U+FFFD and control characters to all characters
    min_letter_ratio: Annotated[float, Field(ge=0, le=1)] = 0.3  # letters of any script to all non-space characters
    max_repeated_line_ratio: Annotated[float, Field(ge=0, le=1)] = 0.9


class OnTimeout(StrEnum):
    FAIL = "fail"
    SKIP = "skip"
    RELEASE = "release"


class GateCondition(_Model):
    ledger_field: Annotated[str, Field(min_length=1, max_length=63)]
    equals: Scalar = True


class StageDefinition(_Model):
    """One stage of a pipeline. ``uses`` names an implementation, ``with`` its settings."""

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
    policy: str = "default"
    depends_on: tuple[str, ...] = ()
    uses: str | None = None
    with_: dict[str, Any] = Field(default_factory=dict, alias="with")
    when: When | None = None
    checks: Checks | None = None


class GateDefinition(_Model):
    """A place where a document waits until a ledger field has a value."""

    name: StageName
    type: Literal[StageType.GATE]
    condition: GateCondition
    resume_stage: StageName
    timeout_seconds: Annotated[float, Field(gt=0, le=30 * 86_400)] = Field(default=86_400, alias="timeout")
    on_timeout: OnTimeout = OnTimeout.FAIL
    depends_on: tuple[str, ...] = ()


Node = Annotated[StageDefinition | GateDefinition, Field(discriminator="type")]


class Topology(_Model):
    """A pipeline. Its digest is the SHA-256 of its canonical JSON: sorted keys, defaults written out, no white space."""

    version: Annotated[str, Field(pattern=r"^\d+\.\d+$")]
    name: Annotated[str, Field(pattern=r"^[a-z-]+$", max_length=63)]
    description: str = ""
    applicable_sources: tuple[str, ...] = ()
    stages: tuple[Node, ...] = Field(min_length=1, max_length=100)

    @cached_property
    def canonical_json(self) -> str:
        return json.dumps(self.model_dump(mode="json", by_alias=True), sort_keys=True, separators=(",", ":"))

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

    @property
    def entry(self) -> StageDefinition:
        """The stage a job begins with."""
        return next(s for s in self.stages if isinstance(s, StageDefinition) and not self.predecessors[s.name])

    @cached_property
    def leaves(self) -> tuple[str, ...]:
        """Stages that nothing depends on: a document is done when all of them are."""
        return tuple(stage.name for stage in self.stages if not self.successors[stage.name])


class Backoff(StrEnum):
    NONE = "none"
    LINEAR = "linear"
    EXPONENTIAL = "exponential"


class Breaker(_Model):
    failures: Annotated[int, Field(ge=3, le=10)]
    reset_seconds: Annotated[float, Field(ge=30, le=600)]


class Policy(_Model):
    """How a stage is retried, timed out, broken off and slowed down. ``attempts`` counts the first one too."""

    attempts: Annotated[int, Field(ge=1, le=10)] = 3
    backoff: Backoff = Backoff.EXPONENTIAL
    initial_seconds: Annotated[float, Field(ge=0.1, le=10)] = 0.5
    max_seconds: Annotated[float, Field(ge=1, le=300)] = 30
    jitter_seconds: Annotated[float, Field(ge=0, le=5)] = 0.5
    timeout_seconds: Annotated[float, Field(ge=1, le=600)] = 30
    breaker: Breaker | None = None
    rate_per_second: Annotated[float, Field(ge=0.1, le=100)] | None = None


class Policies(_Model):
    """The content of ``resilience.yaml``: policies by name."""

    policies: dict[str, Policy]
