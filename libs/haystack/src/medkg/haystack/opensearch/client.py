"""The connection to OpenSearch, and what its failures mean."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from opensearchpy import AsyncOpenSearch
from opensearchpy.exceptions import ConnectionError as NotConnected
from opensearchpy.exceptions import OpenSearchException, SerializationError, TransportError

from medkg.contracts.errors import ConfigurationError, ContractError, MedkgError, ResourceUnavailableError

# too many requests, a primary that moved, a block while an index is rebuilt, a node that starts
_RETRYABLE = frozenset({408, 409, 429, 500, 502, 503, 504})
_BLOCKED = "cluster_block_exception"


@dataclass(frozen=True, slots=True)
class Connection:
    """Where OpenSearch is and who we are there. ``password`` never shows."""

    url: str = "http://127.0.0.1:9200"
    user: str = ""
    password: str = ""
    ca_file: str = ""
    timeout_seconds: float = 30.0

    def __repr__(self) -> str:
        return f"Connection({self.url!r}, user={self.user!r})"


def connect(connection: Connection) -> AsyncOpenSearch:
    """A client; nothing is asked yet. Certificates are verified."""
    known: dict[str, Any] = {"http_auth": (connection.user, connection.password)} if connection.user else {}
    if connection.ca_file:
        known["ca_certs"] = connection.ca_file
    return AsyncOpenSearch(
        hosts=connection.url.split(","),
        timeout=connection.timeout_seconds,
        max_retries=2,
        retry_on_timeout=False,  # a write may have been done: the caller knows what may be done again
        **known,
    )


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """Turns what the client raises into the errors of medkg."""
    try:
        yield
    except OpenSearchException as error:
        raise translate(doing, error) from error


def translate(doing: str, error: OpenSearchException) -> MedkgError:
    """The error of medkg for one of the client's. Its text is OpenSearch's type and reason, never the request."""
    if isinstance(error, NotConnected):
        return ResourceUnavailableError(f"{doing}: OpenSearch does not answer ({type(error).__name__})")
    if isinstance(error, SerializationError) or not isinstance(error, TransportError):
        return ContractError(f"{doing}: {error}"[:1_000])
    status = error.status_code if isinstance(error.status_code, int) else 0
    return refusal(doing, status, str(error.error), _reason(error.info))


def refusal(doing: str, status: int, kind: str, reason: str) -> MedkgError:
    """The error for an answer of OpenSearch, or for one item of a bulk answer."""
    said = f"{doing}: OpenSearch says {status} {kind}: {reason}"[:1_000]
    if status in _RETRYABLE or kind == _BLOCKED:
        return ResourceUnavailableError(said)
    if status in {401, 403}:
        return ConfigurationError(f"{said}; check MEDKG_OPENSEARCH_USER, its password and its roles")
    return ContractError(said)


def _reason(info: object) -> str:
    error = info.get("error") if isinstance(info, dict) else None
    if not isinstance(error, dict):
        return ""
    causes = error.get("root_cause")
    cause = causes[0] if isinstance(causes, list) and causes and isinstance(causes[0], dict) else error
    return str(cause.get("reason", ""))[:500]
