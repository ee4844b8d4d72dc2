"""Telling a study record of ClinicalTrials.gov's API v2 from everything else that is JSON."""

import re

import msgspec

from medkg.contracts.document import RawPayload
from medkg.contracts.errors import PayloadMalformedError, PayloadTooLargeError, PayloadUnsupportedError
from medkg.contracts.media import CTG_STUDY

_NCT = re.compile(r"NCT\d{4,12}")
_V2 = "download it from the API v2 (GET /api/v2/studies/NCT…, format=json)"


def read_study(source: str, data: bytes, uri: str) -> RawPayload:
    """The payload of one study record; its text is the record as it came.

    Raises:
        PayloadMalformedError: no JSON (RFC 8259), not UTF-8, or a study without its NCT number.
        PayloadUnsupportedError: JSON, but no study of the API v2.
        PayloadTooLargeError: nested too deep.
    """
    at = f"reading {uri}"
    try:
        value = msgspec.json.decode(data)
        text = data.decode()
    except RecursionError as error:
        raise PayloadTooLargeError(f"{at}: JSON nested too deep to be a study record") from error
    except msgspec.DecodeError as error:
        raise PayloadMalformedError(f"{at}: not JSON: {error}") from error
    except UnicodeDecodeError as error:
        raise PayloadMalformedError(f"{at}: not UTF-8 (byte {error.start}), which JSON has to be (RFC 8259)") from error
    return RawPayload(source=source, source_id=_nct_of(value, at), media_type=CTG_STUDY, text=text, uri=uri)


def _nct_of(value: object, at: str) -> str:
    if not isinstance(value, dict):
        raise PayloadUnsupportedError(f"{at}: expected a study record, found a JSON {_kind_of(value)}; {_V2}")
    if "FullStudiesResponse" in value or "Study" in value or "ProtocolSection" in value:
        raise PayloadUnsupportedError(f"{at}: a record of the retired API v1; {_V2}")
    if not isinstance(value.get("protocolSection"), dict):
        raise PayloadUnsupportedError(f"{at}: no study record of the API v2 (no protocolSection); {_V2}")
    identification = value["protocolSection"].get("identificationModule")
    nct = identification.get("nctId") if isinstance(identification, dict) else None
    if not isinstance(nct, str) or not _NCT.fullmatch(nct):
        raise PayloadMalformedError(
            f"{at}: a study without an NCT number at /protocolSection/identificationModule/nctId; {_V2}"
        )
    return nct


def aliases_of(text: str) -> frozenset[str]:
    """The NCT numbers under which a study was known before; one of them may be what was asked for."""
    try:
        found = msgspec.json.decode(text, type=_WithAliases)
    except msgspec.MsgspecError:
        return frozenset()
    return frozenset(found.protocolSection.identificationModule.nctIdAliases)


def _kind_of(value: object) -> str:
    kinds = {list: "array", str: "string", bool: "boolean", int: "number", float: "number"}
    return kinds.get(type(value), "null")


class _Identification(msgspec.Struct):
    nctIdAliases: tuple[str, ...] = ()


class _Protocol(msgspec.Struct):
    identificationModule: _Identification


class _WithAliases(msgspec.Struct):
    protocolSection: _Protocol
