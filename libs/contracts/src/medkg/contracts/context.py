"""What a stage is told about the document it works on."""

from dataclasses import dataclass, field

Scalar = str | int | float | bool | None
Metadata = dict[str, Scalar]


@dataclass(frozen=True, slots=True)
class StageContext:
    """Who a document belongs to and which run of it this is; the same on every redelivery.

    ``content_key`` is the hash of input, implementation, version and settings: the name of what this run produces. A
    sink that already holds it has nothing to do. ``revision`` (microseconds since 1970 at which the job was admitted)
    orders runs of the same document: a sink keeps the highest.
    """

    tenant_id: str
    doc_id: str
    correlation_id: str  # the job
    metadata: Metadata = field(default_factory=dict)
    content_key: str = ""
    revision: int = 0
