"""Telling a JATS article from everything else that is XML, and finding its identity."""

import re
from xml.parsers import expat

from medkg.contracts.document import RawPayload
from medkg.contracts.errors import (
    ContentError,
    PayloadMalformedError,
    PayloadTooLargeError,
    PayloadUnsupportedError,
)
from medkg.contracts.media import JATS

MAX_DEPTH = 200  # elements within elements; articles stay under 40
_META = ("article", "front", "article-meta")
_PMCID = re.compile(r"(?:PMC)?(\d{1,12})", re.IGNORECASE)
_DOI = re.compile(r"10\.\d{2,9}/[!-~]{1,300}")
_PMID = re.compile(r"\d{1,12}")
_ADVICE = {
    "clinical_study": "a record of the retired ClinicalTrials.gov XML; download it from the API v2 as JSON",
    "pmc-articleset": "a set of articles; save each <article> as a file of its own",
    "OAI-PMH": "an OAI-PMH answer; save each <article> as a file of its own",
    "PubmedArticleSet": "PubMed records; only full text in JATS is read here",
    "html": "HTML; only full text in JATS is read here",
}


def read_article(source: str, name: str, text: str, uri: str) -> RawPayload:
    """The payload of one article. Its identity is its PMC number, else its DOI, else its PMID, else ``name``.

    The whole text is run through expat, which reads no file and expands no entity: a document that declares one is
    refused where it does, before any expansion.

    Raises:
        PayloadMalformedError: not well-formed XML.
        PayloadUnsupportedError: XML, but no JATS article; or it declares entities of its own.
        PayloadTooLargeError: nested too deep.
    """
    scan = _Scan(f"reading {uri}")
    scan.run(text)
    return RawPayload(source=source, source_id=scan.identity() or name, media_type=JATS, text=text, uri=uri)


class _Scan:
    """One pass over an article: is it one, and what is it called."""

    def __init__(self, at: str) -> None:
        self._at = at
        self._open: list[str] = []
        self._id_type = ""
        self._id_text = ""
        self._ids: dict[str, str] = {}
        self._has_content = False

    def run(self, text: str) -> None:
        parser = expat.ParserCreate()
        parser.buffer_text = True
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.EntityDeclHandler = self._entity
        self._parser = parser
        try:
            parser.Parse(text, True)
        except expat.ExpatError as error:
            reason = expat.ErrorString(error.code)
            raise PayloadMalformedError(
                f"{self._at}: not well-formed XML: {reason} (line {error.lineno}, column {error.offset})"
            ) from error
        except UnicodeEncodeError as error:
            raise PayloadMalformedError(f"{self._at}: not well-formed XML: a lone surrogate") from error
        if not self._has_content:
            raise self._no_article("an <article> without <front> or <body>")

    def identity(self) -> str:
        """The best identifier found, empty if there is none that looks like one."""
        if (pmc := _PMCID.fullmatch(self._ids.get("pmcid") or self._ids.get("pmc", ""))) is not None:
            return f"PMC{pmc.group(1)}"
        if (doi := _DOI.fullmatch(self._ids.get("doi", ""))) is not None:
            return doi.group().lower()  # DOIs compare without case (DOI Handbook, section 2.4)
        if (pmid := _PMID.fullmatch(self._ids.get("pmid", ""))) is not None:
            return f"pmid:{pmid.group()}"
        return ""

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        local = name.rpartition(":")[2]
        depth = len(self._open)
        if depth == 0 and local != "article":
            raise self._no_article(_ADVICE.get(local, f"its root element is <{name[:60]}>"))
        if depth >= MAX_DEPTH:
            raise PayloadTooLargeError(f"{self._at}: XML nested deeper than {MAX_DEPTH} elements")
        if depth == 1 and local in {"front", "body"}:
            self._has_content = True
        if local == "article-id" and tuple(self._open) == _META:
            self._id_type, self._id_text = attributes.get("pub-id-type", ""), ""
            self._parser.CharacterDataHandler = self._characters
        self._open.append(local)

    def _end(self, name: str) -> None:
        del self._open[-1:]
        if self._parser.CharacterDataHandler is not None:
            self._ids.setdefault(self._id_type, self._id_text.strip())
            self._parser.CharacterDataHandler = None

    def _characters(self, data: str) -> None:
        self._id_text = (self._id_text + data)[:1000]

    def _entity(self, name: str, *rest: object) -> None:
        raise PayloadUnsupportedError(
            f"{self._at}: it declares the entity {name[:60]!r}; entities are not expanded here, so write them out"
        )

    def _no_article(self, found: str) -> ContentError:
        return PayloadUnsupportedError(f"{self._at}: XML, but no JATS article: {found}")
