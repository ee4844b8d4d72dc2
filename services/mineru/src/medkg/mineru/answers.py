"""From what MinerU answers to the files of one document in it: JSON (encoded twice) or a zip, of any version."""

import io
import zipfile
from dataclasses import dataclass
from typing import Any

import msgspec

from medkg.contracts.errors import SourceMalformedError
from medkg.mineru.api import Answer

_MAX_ENTRIES = 20_000
_MAX_RATIO = 200  # decompressed over compressed: JSON seldom comes to 30
_NAMES = {
    "_content_list.json": "content_list",
    "_content_list_v2.json": "content_list_v2",
    "_middle.json": "middle_json",
    "content_list.json": "content_list",
    "content_list_v2.json": "content_list_v2",
    "middle.json": "middle_json",
}


class EmptyResult(Exception):
    """MinerU says that it is done, and has nothing to show: there was no output for the document."""


@dataclass(frozen=True, slots=True)
class Output:
    """What MinerU made of one file: decoded JSON, None where it was not given. ``originals`` are its texts as given."""

    version: str
    backend: str
    content_list: Any = None
    content_list_v2: Any = None
    middle: Any = None
    originals: tuple[tuple[str, bytes], ...] = ()


class _Body(msgspec.Struct):
    results: dict[str, dict[str, msgspec.Raw]] | None = None
    version: str | None = None
    backend: str | None = None


def read_answer(answer: Answer, *, max_bytes: int) -> Output:
    """The output of the one document in an answer.

    Raises:
        EmptyResult: there is none in it.
        SourceMalformedError: it cannot be read, or comes to more than ``max_bytes``.
    """
    if answer.media_type == "application/zip" or answer.data[:4] == b"PK\x03\x04":
        return _read_zip(answer.data, max_bytes)
    return _read_json(answer.data)


def _read_json(data: bytes) -> Output:
    body = _decoded(data, "the answer", _Body)
    if not body.results:
        raise EmptyResult
    found = next((value for value in body.results.values() if value), None)
    if found is None:
        raise EmptyResult
    files = {name: bytes(found[name]) for name in ("content_list", "content_list_v2", "middle_json") if name in found}
    texts = {name: text for name, raw in files.items() if (text := _unwrapped(raw, name)) is not None}
    return _output(texts, body.version or "", body.backend or "")


def _unwrapped(raw: bytes, name: str) -> bytes | None:
    """The JSON of a file, however often it has been wrapped in a string; None for null and nothing."""
    for _ in range(3):
        if raw.lstrip()[:1] != b'"':
            break
        raw = _decoded(raw, name, str).encode(errors="replace")
    return None if raw.strip() in {b"", b"null"} else raw


def _read_zip(data: bytes, max_bytes: int) -> Output:
    texts: dict[str, bytes] = {}
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
            if len(entries) > _MAX_ENTRIES:
                raise SourceMalformedError(f"reading MinerU's zip: more than {_MAX_ENTRIES} entries")
            for entry in entries:
                kind = next((kind for ending, kind in _NAMES.items() if entry.filename.endswith(ending)), None)
                if kind is None or kind in texts:
                    continue
                if entry.file_size > min(max_bytes, _MAX_RATIO * max(entry.compress_size, 1_000)):
                    raise SourceMalformedError(f"reading MinerU's zip: {kind} is {entry.file_size} bytes")
                with archive.open(entry) as file:
                    texts[kind] = file.read(entry.file_size + 1)[: entry.file_size]
    except (zipfile.BadZipFile, OSError, ValueError, EOFError, NotImplementedError, RuntimeError) as error:
        raise SourceMalformedError(f"reading MinerU's zip: {error}") from error
    return _output(texts, "", "")


def _output(texts: dict[str, bytes], version: str, backend: str) -> Output:
    values = {name: _decoded(text, name, object) for name, text in texts.items()}
    if not any(values.values()):
        raise EmptyResult
    middle = values.get("middle_json")
    told = middle if isinstance(middle, dict) else {}
    return Output(
        version=_word(version or told.get("_version_name")),
        backend=_word(backend or told.get("_backend")),
        content_list=values.get("content_list"),
        content_list_v2=values.get("content_list_v2"),
        middle=middle,
        originals=tuple(sorted(texts.items())),
    )


def _word(value: object) -> str:
    return value[:60] if isinstance(value, str) and value.isprintable() else ""


def _decoded(data: bytes, what: str, kind: Any) -> Any:
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise SourceMalformedError(f"reading {what} from MinerU: {error}") from error
