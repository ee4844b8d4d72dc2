"""Bytes of a text file to text: which encoding it is, and when it is no text at all.

The rule: a byte order mark decides; else strict UTF-8; else Windows-1252, which is what most files that are not UTF-8
turn out to be. Whatever holds a NUL or many control characters is binary.
"""

import codecs
import re

from medkg.contracts.errors import PayloadMalformedError, PayloadUnsupportedError

FALLBACK = "windows-1252"
_MARKS = (  # UTF-32 before UTF-16: its little-endian mark begins with the other's
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_CONTROLS = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")
_MAX_CONTROL_RATIO = 0.01
_XML_ENCODING = re.compile(rb"<\?xml[^>]{0,200}?encoding\s*=\s*[\"']([A-Za-z0-9._-]{1,40})[\"']")
_XML_ENCODINGS = frozenset(
    ("utf-8", "utf8", "us-ascii", "ascii", "iso-8859-1", "latin-1", "iso-8859-15", "windows-1252", "utf-16")
)


def decode_text(data: bytes, at: str) -> tuple[str, str]:
    """The text without its byte order mark, and the encoding it was in.

    Raises:
        PayloadUnsupportedError: binary.
        PayloadMalformedError: a byte order mark whose encoding the bytes do not follow.
    """
    mark, encoding = _mark_of(data)
    try:
        text = data[len(mark) :].decode(encoding or "utf-8")
    except UnicodeDecodeError as error:
        if encoding:
            raise PayloadMalformedError(f"{at}: marked as {encoding}, but byte {error.start} does not fit") from error
        try:
            text, encoding = data.decode(FALLBACK), FALLBACK
        except UnicodeDecodeError as second:
            raise PayloadUnsupportedError(f"{at}: binary, or text in an unknown encoding; save it as UTF-8") from second
    if "\x00" in text or len(_CONTROLS.findall(text)) > len(text) * _MAX_CONTROL_RATIO:
        raise PayloadUnsupportedError(f"{at}: binary (control characters), not text")
    return text, encoding or "utf-8"


def decode_xml(data: bytes, at: str) -> str:
    """The text of an XML file, by its byte order mark or declaration (XML 1.0, appendix F).

    Raises:
        PayloadUnsupportedError: declared in an encoding that is not read here.
        PayloadMalformedError: the bytes do not follow their encoding.
    """
    mark, encoding = _mark_of(data)
    if not encoding:
        declared = _XML_ENCODING.match(data.lstrip()[:512])
        encoding = declared.group(1).decode().lower() if declared is not None else "utf-8"
        if encoding not in _XML_ENCODINGS:
            raise PayloadUnsupportedError(f"{at}: XML in the encoding {encoding!r}; save it as UTF-8")
    try:
        return data[len(mark) :].decode(encoding)
    except UnicodeDecodeError as error:
        raise PayloadMalformedError(f"{at}: XML in {encoding}, but byte {error.start} does not fit") from error


def without_mark(data: bytes) -> bytes:
    """Bytes without the byte order mark of UTF-8."""
    return data.removeprefix(codecs.BOM_UTF8)


def _mark_of(data: bytes) -> tuple[bytes, str]:
    return next(((mark, encoding) for mark, encoding in _MARKS if data.startswith(mark)), (b"", ""))
