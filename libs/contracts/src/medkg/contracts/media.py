"""Media types of what ingest hands to parse: the two services share nothing else about a format."""

CTG_STUDY = "application/vnd.clinicaltrials.study.v2+json"  # one study record of the ClinicalTrials.gov API v2
JATS = "application/jats+xml"  # one article, ANSI/NISO Z39.96
TEXT = "text/plain"
MARKDOWN = "text/markdown"
PDF = "application/pdf"
FILE_LOCATIONS = "application/vnd.medkg.file-locations+json"  # where a file may be had, best first: FileLocations


def essence(media_type: str) -> str:
    """A media type without its parameters, in lower case: ``text/plain; charset=utf-8`` -> ``text/plain``."""
    return media_type.partition(";")[0].strip().lower()
