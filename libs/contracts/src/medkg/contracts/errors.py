"""What can go wrong in medkg, and whether trying again can help.

::

    MedkgError
    ├── ConfigurationError              settings that cannot work            configuration_invalid
    │   └── PipelineConfigError         a topology or policy at fault        pipeline_config_invalid
    ├── ContractError                   a message breaks its schema          contract_violated
    ├── ContentError                    the document itself is at fault      content_refused
    │   ├── PayloadMalformedError       not what its format says             payload_malformed
    │   ├── PayloadUnsupportedError     a format nobody here reads           payload_unsupported
    │   ├── PayloadTooLargeError        over a size or depth bound           payload_too_large
    │   └── QualityError                below a threshold of the topology    quality_too_low
    ├── SourceError                     a source did not give the record     source_failed
    │   ├── SourceGoneError             404, 410, withdrawn                  source_gone
    │   ├── SourceForbiddenError        401, 403, outside an allowed root    source_forbidden
    │   ├── SourceMalformedError        an answer that cannot be read        source_malformed
    │   ├── SourceRateLimitedError      429                       (retry)    source_rate_limited
    │   └── SourceUnavailableError      5xx, no route             (retry)    source_unavailable
    ├── ResourceUnavailableError        Kafka, ledger, blob store, peer (retry)  resource_unavailable
    ├── StageTimeoutError               a stage ran out of time   (retry)    stage_timeout
    ├── StageCrashedError               a stage raised what it should not    stage_crashed
    ├── GateConditionError              a gate ended without its condition   gate_condition_unmet
    ├── GpuNotAvailable                 a GPU stage without a GPU            gpu_unavailable
    └── GpuOutOfMemory                  out of memory after the batch was halved  gpu_out_of_memory

A code is stable: it stands in events, the ledger, dead letters and metrics.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar


class Disposition(StrEnum):
    """How a document that met this error is counted at the end of its job."""

    REJECTED = "rejected"  # the content is at fault: the same bytes can never pass
    FAILED = "failed"  # medkg, a peer or a setting is at fault: a redrive may pass


class MedkgError(Exception):
    """The root. ``code`` is stable, ``retryable`` says whether the same attempt may succeed later.

    ``context`` holds what a reader needs to find the fault (path, identifier, limit); it is shown to operators, so it
    never holds a secret or a document's text.
    """

    code: ClassVar[str] = "internal_error"
    retryable: ClassVar[bool] = False
    disposition: ClassVar[Disposition] = Disposition.FAILED

    def __init__(self, message: str, *, retry_after_seconds: float | None = None, **context: object) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after_seconds = retry_after_seconds
        self.context = context


class ConfigurationError(MedkgError):
    """Settings that cannot work; the message names the variable and what would be accepted."""

    code = "configuration_invalid"


@dataclass(frozen=True, slots=True, order=True)
class SourceFault:
    """One thing wrong with a file, and where. Lines and columns count from 1."""

    file: str
    line: int
    column: int
    message: str
    hint: str = ""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: {self.message}" + (f"; {self.hint}" if self.hint else "")


class PipelineConfigError(ConfigurationError):
    """A topology, a policy, or a stage's ``uses``/``with`` is at fault.

    ``faults`` names every fault of a file that was read, in its order; it is empty where no file is at fault.
    """

    code = "pipeline_config_invalid"

    def __init__(self, message: str, *, faults: Sequence[SourceFault] = (), **context: object) -> None:
        super().__init__(message, retry_after_seconds=None, **context)
        self.faults = tuple(faults)


class ContractError(MedkgError):
    """A message or artefact that cannot be decoded, or breaks its schema."""

    code = "contract_violated"


class ContentError(MedkgError):
    """The document itself is at fault; no retry and no redrive of the same bytes can help."""

    code = "content_refused"
    disposition = Disposition.REJECTED


class PayloadMalformedError(ContentError):
    code = "payload_malformed"


class PayloadUnsupportedError(ContentError):
    code = "payload_unsupported"


class PayloadTooLargeError(ContentError):
    code = "payload_too_large"


class QualityError(ContentError):
    code = "quality_too_low"


class SourceError(MedkgError):
    """A source did not give what was asked of it."""

    code = "source_failed"


class SourceGoneError(SourceError):
    code = "source_gone"


class SourceForbiddenError(SourceError):
    code = "source_forbidden"


class SourceMalformedError(SourceError):
    code = "source_malformed"


class SourceRateLimitedError(SourceError):
    code = "source_rate_limited"
    retryable = True


class SourceUnavailableError(SourceError):
    code = "source_unavailable"
    retryable = True


class ResourceUnavailableError(MedkgError):
    """Kafka, the ledger, the blob store or a peer does not answer."""

    code = "resource_unavailable"
    retryable = True


class StageTimeoutError(MedkgError):
    code = "stage_timeout"
    retryable = True


class StageCrashedError(MedkgError):
    """A stage raised something that is not in this tree: a bug, kept with its traceback in the log."""

    code = "stage_crashed"


class GateConditionError(MedkgError):
    code = "gate_condition_unmet"


class GpuNotAvailable(MedkgError):
    """A GPU stage was started without a GPU. There is no CPU fallback."""

    code = "gpu_unavailable"


class GpuOutOfMemory(MedkgError):
    code = "gpu_out_of_memory"


def all_errors(root: type[MedkgError] = MedkgError) -> list[type[MedkgError]]:
    """Every class of the tree, parents before children; the generated error table is made from it."""
    found = [root]
    for child in root.__subclasses__():
        found.extend(all_errors(child))
    return found
