"""Deterministic identifiers: the same thing gets the same id on every redelivery, on every machine."""

import hashlib

SEPARATOR = "\x1f"  # ASCII unit separator: refused in every name that goes into an id


def stable_id(*parts: str | int) -> str:
    """32 hexadecimal digits from the parts, in order (BLAKE2b, 128 bits)."""
    return hashlib.blake2b(SEPARATOR.join(map(str, parts)).encode(), digest_size=16).hexdigest()


def document_id(tenant_id: str, source: str, source_id: str) -> str:
    """The identity of a record for a tenant, whichever job brings it."""
    return stable_id("document", tenant_id, source, source_id)


def job_id_of(event_source: str, event_id: str) -> str:
    """The job of a submitted event: CloudEvents makes source + id unique, so a repeated event is the same job."""
    return stable_id("job", event_source, event_id)


def letter_id(topic: str, partition: int, offset: int, job_id: str = "", doc_id: str = "", redrive: int = 0) -> str:
    """The name of a message that could not be handled: where it stood and, where it says so, what it was about.

    A topic that was made anew counts from 0 again: another message at the same place is another letter. (MD5, because
    PostgreSQL knows it too: rows of the first release are named anew by a migration.)
    """
    place = f"{topic}/{partition}/{offset}"
    if not job_id:
        return place
    about = hashlib.md5(f"{job_id}/{doc_id}/{redrive}".encode(), usedforsecurity=False)
    return f"{place}~{about.hexdigest()[:8]}"


def content_digest(data: bytes) -> str:
    """SHA-256 of an artefact's bytes, hexadecimal."""
    return hashlib.sha256(data).hexdigest()
