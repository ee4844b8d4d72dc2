"""What decides in the download stage: locations, pages, parts of files, receipts and the verdict over all locations."""

import time
from pathlib import Path

import msgspec
import pytest

from medkg.contracts.document import FileLocation, FileLocations, RawPayload
from medkg.contracts.errors import (
    ConfigurationError,
    ContractError,
    MedkgError,
    PayloadTooLargeError,
    PayloadUnsupportedError,
    PeerUnavailableError,
    SourceCaptchaError,
    SourceGoneError,
    SourceLoginError,
    SourceMalformedError,
    SourcePaywallError,
    SourceRateLimitedError,
    SourceUnavailableError,
)
from medkg.contracts.implementation import Host
from medkg.contracts.media import FILE_LOCATIONS, JATS, PDF
from medkg.download.app import HTTP
from medkg.download.candidates import MAX_LOCATIONS, locations_of
from medkg.download.pages import fault_of_page, is_pdf, is_whole_pdf
from medkg.download.receipts import Receipt, Receipts, file_path, validator
from medkg.download.settings import DownloadSettings
from medkg.download.stage import verdict
from medkg.download.staging import MAX_KEPT, Staging
from medkg.runtime.blobs import open_blobs
from medkg.runtime.settings import from_environment

URL = "https://publisher.test/a.pdf"


def payload(*urls: str) -> RawPayload:
    text = msgspec.json.encode(FileLocations(tuple(FileLocation(url) for url in urls))).decode()
    return RawPayload("core", "1", FILE_LOCATIONS, text=text)


def test_locations_keep_the_order_of_the_source_and_each_is_tried_once() -> None:
    found = locations_of(payload("https://a.test", "https://b.test", "", "https://a.test"))
    assert [location.url for location in found] == ["https://a.test", "https://b.test"]


def test_no_more_than_a_few_locations_are_tried() -> None:
    assert len(locations_of(payload(*(f"https://a.test/{n}" for n in range(500))))) == MAX_LOCATIONS


def test_a_record_whose_address_is_a_pdf_has_one_location() -> None:
    assert locations_of(RawPayload("mine", "1", f"{PDF}; x=1", uri=URL)) == (FileLocation(URL),)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (RawPayload("files", "1", JATS, text="<article/>"), PayloadUnsupportedError),
        (RawPayload("files", "1", PDF), PayloadUnsupportedError),
        (payload(), PayloadUnsupportedError),
        (payload(""), PayloadUnsupportedError),
        (RawPayload("core", "1", FILE_LOCATIONS, text='{"locations": [{}]}'), ContractError),
        (RawPayload("core", "1", FILE_LOCATIONS, text="not json"), ContractError),
        (RawPayload("core", "1", FILE_LOCATIONS, text='{"locations":' + "[" * 5_000), ContractError),
    ],
)
def test_a_payload_without_a_location_says_so(given: RawPayload, expected: type[MedkgError]) -> None:
    with pytest.raises(expected):
        locations_of(given)


def test_a_pdf_is_told_by_its_beginning_and_its_end() -> None:
    assert is_pdf(b"%PDF-1.4")
    assert is_pdf(b"\xef\xbb\xbf\r\n" + b" " * 900 + b"%PDF-2.0")
    assert not is_pdf(b" " * 1_100 + b"%PDF-1.4")
    assert not is_pdf(b"<html>%pdf-")
    assert is_whole_pdf(b"%%EOF" + b"\n" * 4_000)
    assert not is_whole_pdf(b"%%EOF" + b"\n" * 5_000)


def test_a_page_that_offers_everything_is_named_for_what_matters() -> None:
    """The pages of publishers hold a login and a shop at once; the head of a shop has a login."""

    def fault(html: str, status: int = 200, url: str = URL, **headers: str) -> type[MedkgError] | None:
        found = fault_of_page(
            "x", url, status, {name.replace("_", "-"): v for name, v in headers.items()}, html.encode()
        )
        return type(found) if found is not None else None

    assert fault("<title>Article</title>Sign in <input type=password> Buy this article") is SourcePaywallError
    assert fault("<title>Page not found</title>Subscribe to this journal. Log in") is SourceGoneError
    assert fault("Buy this article", cf_mitigated="challenge") is SourceCaptchaError
    assert fault("<html>hello", url="https://idp.test/oauth2/authorize?x=1") is SourceLoginError
    assert fault("<html>hello", url="https://publisher.test/caster/login-methods.html") is SourceMalformedError
    assert fault("teapot", 418) is None
    assert fault("<title>" + "x" * 10**6 + "<title>" * 10**5) is SourceMalformedError


def test_telling_pages_apart_takes_no_longer_than_reading_them() -> None:
    for hostile in (b"<title" * 20_000, b"<title>" + b"(" * 200_000, b"type=" * 50_000, b"access " * 40_000):
        begun = time.perf_counter()
        fault_of_page("x", URL, 200, {}, hostile)
        assert time.perf_counter() - begun < 0.5


def tried(*errors: MedkgError) -> list[tuple[FileLocation, MedkgError]]:
    return [(FileLocation(f"https://a.test/{n}?token=t"), error) for n, error in enumerate(errors)]


def test_the_verdict_is_that_of_the_most_hopeful_location() -> None:
    gone, sold = SourceGoneError("gone"), SourcePaywallError("sold")
    slow = SourceRateLimitedError("slow", retry_after_seconds=30)
    down = SourceUnavailableError("down", retry_after_seconds=9)
    big, odd, quiet = PayloadTooLargeError("big"), SourceMalformedError("odd"), PeerUnavailableError("quiet")
    assert type(verdict("x", tried(gone, gone))) is SourceGoneError
    assert type(verdict("x", tried(gone, odd))) is SourceMalformedError
    assert type(verdict("x", tried(gone, big))) is PayloadTooLargeError
    assert type(verdict("x", tried(gone, big, sold))) is SourcePaywallError
    assert type(verdict("x", tried(sold, slow, down))) is SourceRateLimitedError
    assert verdict("x", tried(sold, slow, down)).retry_after_seconds == 9
    assert verdict("x", tried(sold, down, quiet)) is quiet
    said = verdict("downloading", tried(gone, sold))
    assert "1. gone; 2. sold" in said.message
    assert said.context["locations"] == ["https://a.test/0", "https://a.test/1"]


def test_a_part_is_gone_on_with_by_one_and_only_if_it_is_what_its_note_says(tmp_path: Path) -> None:
    staging = Staging(tmp_path)
    part = staging.open("t", URL)
    part.write(b"%PDF-1.7 first")
    part.validator = '"1"'
    staging.keep("t", URL, part)

    other_tenant = staging.open("u", URL)
    one, two = staging.open("t", URL), staging.open("t", URL)
    assert (one.size_bytes, one.validator) == (14, '"1"')
    assert (two.size_bytes, two.validator, other_tenant.size_bytes) == (0, "", 0)
    one.write(b" second")
    staging.keep("t", URL, one)
    (kept,) = tmp_path.glob("*.part")
    assert kept.read_bytes() == b"%PDF-1.7 first second"
    kept.write_bytes(b"%PDF-1.7 FIRST second")
    again = staging.open("t", URL)
    assert (again.size_bytes, again.validator) == (0, "")
    for each in (two, other_tenant, again):
        staging.discard(each)
    assert list(tmp_path.iterdir()) == []


def test_a_part_that_cannot_be_gone_on_with_is_not_kept(tmp_path: Path) -> None:
    staging = Staging(tmp_path)
    part = staging.open("t", URL)
    part.write(b"%PDF-1.7 first")
    staging.keep("t", URL, part)
    assert list(tmp_path.iterdir()) == []


def test_no_more_than_some_parts_are_kept_and_old_ones_are_swept(tmp_path: Path) -> None:
    staging = Staging(tmp_path / "downloads")
    staging.sweep(time.time())  # before there is a folder
    for number in range(MAX_KEPT + 5):
        part = staging.open("t", f"{URL}{number}")
        part.write(b"%PDF")
        part.validator = '"1"'
        staging.keep("t", f"{URL}{number}", part)
    assert len(list((tmp_path / "downloads").iterdir())) == 2 * MAX_KEPT
    staging.sweep(time.time() + 25 * 3_600)
    assert list((tmp_path / "downloads").iterdir()) == []


async def test_a_receipt_counts_only_while_its_file_is_there(tmp_path: Path) -> None:
    blobs = open_blobs("memory:")
    receipts = Receipts(blobs)
    receipt = Receipt(URL, URL, "ab" * 32, 4, etag='"1"', last_modified="Sat, 01 Jan 2000 00:00:00 GMT")
    await receipts.keep("t", receipt)
    assert await receipts.find("t", URL) is None
    await blobs.put(file_path("t", "ab" * 32), b"%PDF")
    assert await receipts.find("t", URL) == receipt
    assert await receipts.find("other", URL) is None
    assert receipt.validators() == {"If-None-Match": '"1"', "If-Modified-Since": receipt.last_modified}


@pytest.mark.parametrize("value", ["x" * 1_001, "é", "a\r\nX: y", "\x00"])
def test_a_validator_that_could_not_be_sent_back_is_not_kept(value: str) -> None:
    assert validator(value) == ""
    assert validator('W/"1"') == 'W/"1"'


def test_settings_read_ports_as_numbers_and_refuse_what_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    assert DownloadSettings().allowed_ports == {80, 443}
    assert not DownloadSettings().allow_loopback
    monkeypatch.setenv("MEDKG_DOWNLOAD_PORTS", "443,8443")
    assert DownloadSettings().allowed_ports == {443, 8443}
    monkeypatch.setenv("MEDKG_DOWNLOAD_PORTS", "443;22")
    with pytest.raises(ConfigurationError, match="MEDKG_DOWNLOAD_PORTS"):
        from_environment(DownloadSettings)


async def test_a_store_that_takes_no_files_is_refused_at_start(tmp_path: Path) -> None:
    class OnlyBytes:
        async def get(self, key: str) -> bytes | None:
            return None

        async def put(self, key: str, data: bytes) -> None: ...

    with pytest.raises(ConfigurationError, match="takes no files"):
        async with HTTP.open(HTTP.options(), Host(tmp_path, OnlyBytes())):
            pytest.fail("opened")
