"""The parse stage: chooses the parser by the payload's media type."""

from collections.abc import Callable

from medkg.contracts.context import StageContext
from medkg.contracts.document import Document, RawPayload
from medkg.contracts.errors import PayloadTooLargeError, PayloadUnsupportedError
from medkg.contracts.media import CTG_STUDY, JATS, MARKDOWN, TEXT, essence
from medkg.parse.ctg import parse_study
from medkg.parse.jats import parse_article
from medkg.parse.text import parse_text

Parser = Callable[[StageContext, RawPayload], Document]

PARSERS: dict[str, Parser] = {
    CTG_STUDY: parse_study,
    JATS: parse_article,
    TEXT: parse_text,
    MARKDOWN: parse_text,
    # What other adapters may call the same things; each parser checks for itself what it is given.
    "application/json": parse_study,
    "application/xml": parse_article,
    "text/xml": parse_article,
}


class AutoParser:
    """Parses whatever it knows. Pure: no I/O, the same payload gives the same document; safe in many threads."""

    def __init__(self, max_characters: int) -> None:
        self._max_characters = max_characters

    def execute(self, ctx: StageContext, payload: RawPayload) -> Document:
        """The document of a record.

        Raises:
            PayloadUnsupportedError: nothing here reads its media type, or it is not what that promises.
            PayloadMalformedError: it breaks its format.
            PayloadTooLargeError: it is over a bound of size, depth or count.
        """
        parser = PARSERS.get(essence(payload.media_type))
        if parser is None:
            raise PayloadUnsupportedError(
                f"parsing {payload.source_id}: nothing here reads {payload.media_type!r}; known are "
                + ", ".join(PARSERS)
            )
        if len(payload.text) > self._max_characters:
            raise PayloadTooLargeError(
                f"parsing {payload.source_id}: {len(payload.text)} characters are over the limit of "
                f"{self._max_characters}; raise max_characters of this stage in the topology"
            )
        return parser(ctx, payload)
