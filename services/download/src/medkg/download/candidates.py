"""Where a payload says that its file may be had, best first."""

import msgspec

from medkg.contracts.document import FileLocation, FileLocations, RawPayload
from medkg.contracts.errors import ContractError, PayloadUnsupportedError
from medkg.contracts.media import FILE_LOCATIONS, PDF, essence

MAX_LOCATIONS = 20  # of one document that are tried

_DECODE = msgspec.json.Decoder(FileLocations).decode


def locations_of(payload: RawPayload) -> tuple[FileLocation, ...]:
    """The locations of a payload: its list, or the URL of a PDF; each URL once, in the source's order.

    Raises:
        PayloadUnsupportedError: the payload is neither, or names no location.
        ContractError: its list cannot be read.
    """
    at = f"downloading the file of {payload.source} {payload.source_id}"
    kind = essence(payload.media_type)
    if kind == FILE_LOCATIONS:
        try:
            given = _DECODE(payload.text).locations
        except (msgspec.MsgspecError, RecursionError) as error:
            raise ContractError(f"{at}: its list of locations cannot be read: {error}") from error
    elif kind == PDF and payload.uri:
        given = (FileLocation(payload.uri),)
    else:
        raise PayloadUnsupportedError(
            f"{at}: a payload of type {kind!r} has no file to fetch; use a pipeline that parses it as it is"
        )
    found = {location.url: location for location in reversed(given) if location.url}
    unique = tuple(found[url] for url in dict.fromkeys(location.url for location in given if location.url))
    if not unique:
        raise PayloadUnsupportedError(f"{at}: the source names no location")
    return unique[:MAX_LOCATIONS]
