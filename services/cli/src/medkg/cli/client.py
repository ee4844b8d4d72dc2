"""The gateway's HTTP API, typed. Every failure comes out as an error that says what to do."""

import ipaddress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, TypeVar
from urllib.parse import quote

import httpx
import msgspec

from medkg.cli import answers
from medkg.cli.exits import CommandError, FleetUnreachable, NotFound
from medkg.cli.why_answers import GateDecision, WaitList, Why
from medkg.contracts.ids import job_id_of

EVENT_SOURCE = "medkg-gateway"  # the CloudEvents source of jobs that come by HTTP; part of the job's id
MAX_ANSWER_BYTES = 64 * 1024 * 1024
_TIMEOUT = httpx.Timeout(30.0, connect=5.0)  # the gateway waits up to 10 s for the router's word on a new job
_SUBMIT_ATTEMPTS = 2

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """An answer as read, and as it came: ``raw`` keeps what a newer gateway says beyond what is known here."""

    value: T
    body: bytes

    @property
    def raw(self) -> Any:
        return msgspec.json.decode(self.body)


class GatewayClient:
    """One connection to one gateway, for a tenant. Raises FleetUnreachable, NotFound or CommandError, nothing else."""

    def __init__(self, base_url: str, tenant_id: str = "default") -> None:
        self.base_url = base_url
        self._tenant_id = tenant_id
        # A proxy of the environment knows nothing of this machine's loopback.
        self._http = httpx.Client(base_url=base_url, timeout=_TIMEOUT, trust_env=not _is_loopback(base_url))

    def __enter__(self) -> "GatewayClient":
        return self

    def __exit__(self, _type: type[BaseException] | None, _e: BaseException | None, _tb: TracebackType | None) -> None:
        self._http.close()

    def submit(self, submission: bytes, event_id: str) -> Answer[answers.Submitted]:
        """Submit a job. The same ``event_id`` is the same job, so a lost answer is asked for again without harm."""
        headers = {"content-type": "application/json", "idempotency-key": event_id}
        for attempt in range(1, _SUBMIT_ATTEMPTS + 1):
            try:
                return self._send("POST", "/v1/jobs", answers.Submitted, content=submission, headers=headers)
            except _NoAnswer as error:
                if attempt == _SUBMIT_ATTEMPTS:
                    job_id = job_id_of(EVENT_SOURCE, f"{self._tenant_id}/{event_id}")  # as the gateway names it
                    error.hint = f"the job may have been submitted: see `medkg watch {job_id}`"
                    raise
        raise AssertionError("unreachable: the last attempt returns or raises")

    def jobs(self, tenant_id: str, limit: int = 50, before: str = "") -> Answer[answers.JobList]:
        """Jobs, newest first."""
        return self._get("/v1/jobs", answers.JobList, tenant_id=tenant_id, limit=limit, before=before)

    def job(self, job_id: str) -> Answer[answers.Job]:
        return self._get(f"/v1/jobs/{_segment(job_id)}", answers.Job, tenant_id=self._tenant_id)

    def documents(
        self, job_id: str, state: str = "", limit: int = 100, after: str = ""
    ) -> Answer[answers.DocumentList]:
        """One page of a job's documents."""
        path = f"/v1/jobs/{_segment(job_id)}/documents"
        query = {"tenant_id": self._tenant_id, "state": state, "after": after}
        return self._get(path, answers.DocumentList, limit=limit, **query)

    def document(self, job_id: str, doc_id: str) -> Answer[answers.JobDocument]:
        """A document with its timeline."""
        path = f"/v1/jobs/{_segment(job_id)}/documents/{_segment(doc_id)}"
        return self._get(path, answers.JobDocument, tenant_id=self._tenant_id)

    def search(self, query: str, tenant_id: str, limit: int = 10, **asked: Any) -> Answer[answers.SearchResult]:
        """Passages that answer; ``asked`` are the gateway's filters and wishes, by name, a list for several values."""
        return self._get("/v1/search", answers.SearchResult, q=query, tenant_id=tenant_id, limit=limit, **asked)

    def graph(self, entity: str, tenant_id: str, limit: int = 50) -> Answer[answers.GraphResult]:
        return self._get("/v1/graph", answers.GraphResult, entity=entity, tenant_id=tenant_id, limit=limit)

    def dead_letters(self, limit: int = 100, **asked: str | float) -> Answer[answers.DeadLetterList]:
        """Dead letters, newest first; ``asked`` are the gateway's filters, by name."""
        return self._get("/v1/dead-letters", answers.DeadLetterList, tenant_id=self._tenant_id, limit=limit, **asked)

    def dead_message(self, letter_id: str) -> Answer[answers.DeadMessage]:
        """The message of a dead letter as it was."""
        return self._get("/v1/dead-letters/message", answers.DeadMessage, tenant_id=self._tenant_id, id=letter_id)

    def decide(self, decision: str, letter_id: str, actor: str, reason: str) -> Answer[answers.LetterOutcome]:
        """``redrive`` or ``drop`` a dead letter. What was decided before is an error with the code already_decided."""
        body = {"id": letter_id, "actor": actor, "reason": reason}
        path, query = f"/v1/dead-letters/{decision}", {"tenant_id": self._tenant_id}
        return self._send("POST", path, answers.LetterOutcome, json=body, params=query)

    def why(self, identity: str, job_id: str = "") -> Answer[Why]:
        """Why a job or a document does not go on."""
        return self._get(f"/v1/why/{_segment(identity)}", Why, tenant_id=self._tenant_id, job_id=job_id)

    def gates(self, limit: int = 100, **asked: str | float) -> Answer[WaitList]:
        """What waits; ``asked`` are the gateway's filters, by name."""
        return self._get("/v1/gates", WaitList, tenant_id=self._tenant_id, limit=limit, **asked)

    def decide_gates(self, body: dict[str, Any]) -> Answer[GateDecision]:
        """Release, fail or extend waits by hand."""
        query = {"tenant_id": self._tenant_id}
        return self._send("POST", "/v1/gates/decisions", GateDecision, json=body, params=query)

    def rejections(self, limit: int = 100) -> Answer[answers.RejectionList]:
        return self._get("/v1/rejections", answers.RejectionList, tenant_id=self._tenant_id, limit=limit)

    def pipeline(self, name: str) -> Answer[dict[str, Any]]:
        """A topology as JSON."""
        return self._get(f"/v1/pipelines/{_segment(name)}", dict[str, Any])

    def status(self) -> Answer[answers.FleetStatus]:
        return self._get("/v1/status", answers.FleetStatus)

    def _get(self, path: str, model: type[T], **query: Any) -> Answer[T]:
        params = {name: value for name, value in query.items() if value != ""}
        return self._send("GET", path, model, params=params)

    def _send(self, method: str, path: str, model: type[T], **request: Any) -> Answer[T]:
        try:
            with self._http.stream(method, path, **request) as response:
                body = _bounded(response)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            hint = "start it with `medkg up`, or say where it is: --gateway URL"
            raise FleetUnreachable(f"the fleet is not up at {self.base_url}", hint=hint) from error
        except httpx.HTTPError as error:
            raise _NoAnswer(f"the gateway at {self.base_url} broke off: {error or type(error).__name__}") from error
        if response.is_error:
            raise self._error_of(response, body)
        try:
            return Answer(msgspec.json.decode(body, type=model), body)
        except (msgspec.DecodeError, RecursionError) as error:
            raise self._stranger(f"its answer to {path} cannot be read: {error}") from error

    def _error_of(self, response: httpx.Response, body: bytes) -> CommandError:
        try:
            error = msgspec.json.decode(body, type=answers.ErrorAnswer).error
        except (msgspec.DecodeError, RecursionError):
            return self._stranger(f"it answered {response.status_code} {response.reason_phrase}")
        kinds: dict[int, type[CommandError]] = {404: NotFound, 503: FleetUnreachable}
        kind = kinds.get(response.status_code, CommandError)
        message = error.message or f"the gateway answered {response.status_code}"
        return kind(message, hint=error.hint or "", code=error.code, faults=error.faults)

    def _stranger(self, detail: str) -> CommandError:
        hint = "is that address a medkg gateway of this version? See --gateway and `medkg version`"
        return FleetUnreachable(f"{self.base_url} does not speak as a medkg gateway: {detail}", hint=hint)


class _NoAnswer(FleetUnreachable):
    """The request may or may not have had its effect."""


def _bounded(response: httpx.Response) -> bytes:
    body = bytearray()
    for part in response.iter_bytes():
        body += part
        if len(body) > MAX_ANSWER_BYTES:
            raise CommandError(f"the gateway's answer is over {MAX_ANSWER_BYTES} bytes", hint="ask for less: --limit")
    return bytes(body)


def _segment(value: str) -> str:
    return quote(value, safe="")


def _is_loopback(url: str) -> bool:
    host = httpx.URL(url).host
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
