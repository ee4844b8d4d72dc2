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
    │   ├── NeedsOcrError               pages that are pictures              needs_ocr
    │   ├── ParserKilledError           took its parser's process down       parser_killed
    │   └── QualityError                below a threshold of the topology    quality_too_low
    ├── SourceError                     a source did not give the record     source_failed
    │   ├── SourceGoneError             404, 410, withdrawn                  source_gone
    │   ├── SourceForbiddenError        401, 403, outside an allowed root    source_forbidden
    │   │   ├── SourcePaywallError       a page that sells the file           source_paywall
    │   │   ├── SourceLoginError         a page that asks who reads           source_login
    │   │   └── SourceCaptchaError       a page that asks for a human         source_captcha
    │   ├── SourceMalformedError        an answer that cannot be read        source_malformed
    │   ├── SourceRateLimitedError      429                       (retry)    source_rate_limited
    │   └── SourceUnavailableError      5xx, no route             (retry)    source_unavailable
    ├── ResourceUnavailableError        Kafka, ledger, blob store, peer (retry)  resource_unavailable
    │   └── PeerUnavailableError        a peer's breaker is open      (retry)    peer_unavailable
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
from functools import cache
from typing import ClassVar


class Disposition(StrEnum):
    """How a document that met this error is counted at the end of its job."""

    REJECTED = "rejected"  # the content is at fault: the same bytes can never pass
    FAILED = "failed"  # medkg, a peer or a setting is at fault: a redrive may pass


class MedkgError(Exception):
    """The root. ``code`` is stable, ``retryable`` says whether the same attempt may succeed later.

    ``trips_breaker``: it speaks against what the stage depends on (a peer, a store, a GPU, or time), not against the
    document, and so counts for a breaker. ``remedy`` is what an operator does about it.

    ``context`` holds what a reader needs to find the fault (path, identifier, limit); it is shown to operators, so it
    never holds a secret or a document's text.
    """

    code: ClassVar[str] = "internal_error"
    retryable: ClassVar[bool] = False
    disposition: ClassVar[Disposition] = Disposition.FAILED
    trips_breaker: ClassVar[bool] = False
    remedy: ClassVar[str] = "look at the log of the worker that the dead letter names, then redrive"

    def __init__(self, message: str, *, retry_after_seconds: float | None = None, **context: object) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after_seconds = retry_after_seconds
        self.context = context

    @classmethod
    def event_code(cls) -> str:
        """The code as the CloudEvents attribute ``errorcode`` of events that tell of it."""
        return error_code(cls.code)


class ConfigurationError(MedkgError):
    """Settings that cannot work; the message names the variable and what would be accepted."""

    code = "configuration_invalid"
    remedy = "mend the setting that the message names and start again"


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
    remedy = "mend the topology or policy (`medkg topology check`), then submit the job anew"

    def __init__(self, message: str, *, faults: Sequence[SourceFault] = (), **context: object) -> None:
        super().__init__(message, retry_after_seconds=None, **context)
        self.faults = tuple(faults)


class ContractError(MedkgError):
    """A message or artefact that cannot be decoded, or breaks its schema."""

    code = "contract_violated"
    remedy = "find the writer of the message (`ce_source`, position in the dead letter); redrive once it is mended"


class ContentError(MedkgError):
    """The document itself is at fault; no retry and no redrive of the same bytes can help."""

    code = "content_refused"
    disposition = Disposition.REJECTED
    remedy = "nothing: the same bytes can never pass; mend the record at its source and submit it anew"


class PayloadMalformedError(ContentError):
    code = "payload_malformed"


class PayloadUnsupportedError(ContentError):
    code = "payload_unsupported"


class PayloadTooLargeError(ContentError):
    code = "payload_too_large"


class NeedsOcrError(ContentError):
    """Pages that hold pictures of text, and no text."""

    code = "needs_ocr"


class ParserKilledError(ContentError):
    """Reading it took more memory, time or output than a parser is given, or crashed it."""

    code = "parser_killed"


class QualityError(ContentError):
    code = "quality_too_low"


class SourceError(MedkgError):
    """A source did not give what was asked of it."""

    code = "source_failed"
    remedy = "read what the source answered, then redrive"


class SourceGoneError(SourceError):
    code = "source_gone"
    remedy = "nothing: the source has withdrawn it; leave it out of the selection"


class SourceForbiddenError(SourceError):
    code = "source_forbidden"
    remedy = "give the service a key or a root that may read it, then redrive"


class SourcePaywallError(SourceForbiddenError):
    code = "source_paywall"
    remedy = "get the file by a way that your library has paid for; no setting opens a shop"


class SourceLoginError(SourceForbiddenError):
    code = "source_login"
    remedy = "get the file by a way of your own; the download service has no accounts"


class SourceCaptchaError(SourceForbiddenError):
    code = "source_captcha"
    remedy = "ask the publisher for a way that is meant for machines, or redrive later"


class SourceMalformedError(SourceError):
    code = "source_malformed"
    remedy = "tell whoever runs the source; redrive when it answers properly"


class SourceRateLimitedError(SourceError):
    code = "source_rate_limited"
    retryable = True
    remedy = "lower `rate_per_second` of the stage's policy, then redrive"


class SourceUnavailableError(SourceError):
    code = "source_unavailable"
    retryable = True
    trips_breaker = True
    remedy = "redrive when the source answers again"


class ResourceUnavailableError(MedkgError):
    """Kafka, the ledger, the blob store or a peer does not answer."""

    code = "resource_unavailable"
    retryable = True
    trips_breaker = True
    remedy = "bring the store or server back: workers wait for it and go on by themselves"


class PeerUnavailableError(ResourceUnavailableError):
    """A peer is left alone for a while, because it failed several times in a row: its breaker is open."""

    code = "peer_unavailable"
    trips_breaker = False  # one that is open already says nothing new
    remedy = "bring the peer back: documents wait at the gate-router and go on by themselves"


class StageTimeoutError(MedkgError):
    code = "stage_timeout"
    retryable = True
    trips_breaker = True
    remedy = "raise `timeout_seconds` of the policy, or find what made the stage slow, then redrive"


class StageCrashedError(MedkgError):
    """A stage raised something that is not in this tree: a bug, kept with its traceback in the log."""

    code = "stage_crashed"
    remedy = "a bug: its traceback is in the log; redrive after the release that mends it"


class GateConditionError(MedkgError):
    code = "gate_condition_unmet"
    remedy = "look why the condition was not met (`medkg why`), then redrive"


class GpuNotAvailable(MedkgError):
    """A GPU stage was started without a GPU. There is no CPU fallback."""

    code = "gpu_unavailable"
    trips_breaker = True
    remedy = "run the service where a GPU is, or name another implementation with `uses`, then redrive"


class GpuOutOfMemory(MedkgError):
    code = "gpu_out_of_memory"
    trips_breaker = True
    remedy = "lower the batch size or give the model more memory, then redrive"


def error_code(code: str) -> str:
    """A code as it stands in the attributes of an event, where it needs a name space of its own."""
    return f"org.medicalkg.error.{code}"


def remedy_of(code: str) -> str:
    """What an operator does about a failure with this code; for a code of another release, what always helps."""
    return _remedies().get(code, MedkgError.remedy)


@cache
def _remedies() -> dict[str, str]:
    return {error.code: error.remedy for error in all_errors()}


def all_errors(root: type[MedkgError] = MedkgError) -> list[type[MedkgError]]:
    """Every class of the tree, parents before children; the generated error table is made from it."""
    found = [root]
    for child in root.__subclasses__():
        found.extend(all_errors(child))
    return found
