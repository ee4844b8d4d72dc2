"""Telling a PDF from what servers send in its place: a shop, a login, a question whether one is human, an apology."""

import re
from collections.abc import Mapping

from medkg.contracts.errors import (
    SourceCaptchaError,
    SourceError,
    SourceGoneError,
    SourceLoginError,
    SourceMalformedError,
    SourcePaywallError,
)

HEAD_BYTES = 64 * 1024  # of a page that are looked at
MAGIC_WITHIN = (
    1_024  # bytes: ISO 32000 wants it first, readers have always looked this far (PDF 1.7, implementation note 13)
)
END_WITHIN = 4_096  # bytes from the end: 1,024 in the same notes, and room for what servers append

_MAGIC, _END = b"%PDF-", b"%%EOF"

_CAPTCHA = re.compile(
    r"captcha|cf[-_]chl|challenge-platform|<title>just a moment|checking your browser|are you (?:a )?(?:human|robot)|"
    r"_incapsula_|datadome|px-captcha|awswafintegration|verify you are human|unusual traffic"
)
_GONE_TITLE = re.compile(
    r"(?:not found|\b404\b|no longer available|\bgone\b|has been (?:removed|withdrawn)|does not exist)"
)
_PAYWALL = re.compile(
    r"paywall|buy (?:this )?(?:article|pdf|chapter)|purchase (?:this )?(?:article|pdf|access|instant)|rent this|"
    r"get (?:full |instant )?access|access options|access through your institution|institutional access|"
    r"subscribe to (?:this )?(?:journal|read)|add to (?:cart|basket)|pay[- ]per[- ]view|preview of subscription content"
)
_LOGIN = re.compile(r"type=[\"']?password|single sign-on")
_LOGIN_TITLE = re.compile(r"\b(?:log|sign)[ -]?(?:in|on)\b|authentication")
_LOGIN_PLACE = re.compile(
    r"(?i)/(?:login|log-in|signin|sign-in|sso|idp|wayf|shibboleth|cas|oauth2?|authorize)(?:[/?.]|$)"
)
_TITLE = re.compile(r"<title[^>]{0,200}>([^<]{0,500})")
_HTML = re.compile(r"<(?:!doctype html|html|head|body|title|script|meta)\b")


def is_pdf(head: bytes | bytearray) -> bool:
    """Whether these first bytes are those of a PDF."""
    return _MAGIC in head[:MAGIC_WITHIN]


def is_whole_pdf(tail: bytes) -> bool:
    """Whether these last bytes are those of a PDF that came to its end."""
    return _END in tail[-END_WITHIN:]


def fault_of_page(at: str, url: str, status: int, headers: Mapping[str, str], head: bytes) -> SourceError | None:
    """What a page that came in the place of a PDF means; None where it tells nothing that its status does not.

    ``url`` is where the page lies after redirects, ``head`` the beginning of it.
    """
    text = head[:HEAD_BYTES].decode(errors="replace").lower()
    title = found[1].strip() if (found := _TITLE.search(text)) else ""
    kind, meaning = _meaning(url, status, headers, text, title)
    if kind is None:
        return None
    said = headers.get("content-type", "").partition(";")[0][:80] or "no content type"
    return kind(f"reading {at}: {meaning} came in the place of the PDF ({status}, {said}, {title[:100] or 'no title'})")


def _meaning(
    url: str, status: int, headers: Mapping[str, str], text: str, title: str
) -> tuple[type[SourceError] | None, str]:
    is_challenge = headers.get("cf-mitigated", "").lower() == "challenge"
    is_login_place = status == 401 or bool(_LOGIN_PLACE.search(url.partition("?")[0]))
    is_login = is_login_place or bool(_LOGIN.search(text) or _LOGIN_TITLE.search(title))
    # The first that holds: a challenge says nothing of the article, and the head of a shop has a login.
    meanings: tuple[tuple[bool, type[SourceError], str], ...] = (
        (is_challenge or bool(_CAPTCHA.search(text)), SourceCaptchaError, "a page that asks for a human"),
        (status in {404, 410} or bool(_GONE_TITLE.search(title)), SourceGoneError, "a page that says it is gone"),
        (bool(_PAYWALL.search(text)), SourcePaywallError, "a page that sells the file"),
        (is_login, SourceLoginError, "a page that asks who reads"),
        (status == 200 and bool(_HTML.search(text)), SourceMalformedError, "an HTML page"),
        (status == 200, SourceMalformedError, "something that is no PDF"),
    )
    return next(((kind, meaning) for holds, kind, meaning in meanings if holds), (None, ""))
