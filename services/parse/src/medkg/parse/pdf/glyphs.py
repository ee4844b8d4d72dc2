"""Reading pages with PDFium: the only module that touches it. Runs in a process of its own (see ``child``)."""

import ctypes
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pypdfium2 as pdfium
from pypdfium2 import raw

from medkg.contracts.errors import PayloadMalformedError, PayloadTooLargeError, PayloadUnsupportedError
from medkg.parse.pdf.page import Box, Page, Run, Style

HYPHEN = "\u00ad"  # how a hyphen at the end of a line, which PDFium reports as U+0002, stands in a run
_PDFIUM_HYPHENS = {0x2, 0xFFFE}  # one by one, and in a string
_MAX_CHARACTERS_OF_PAGE = 500_000
_MAX_OBJECTS_OF_PAGE = 100_000
_NEW_RUN_GAP = 1.6  # of the font's height; the white between two columns is seldom less, between two words seldom more
_LIGATURE = 1.3  # of the font's height: the letters of a ligature are all reported where it stands
_UPRIGHT = 0.02  # radians
_BOLD_WEIGHT = 600
_MAX_CLIP_PATHS = 16
_MAX_CLIP_POINTS = 64

Place = Callable[[float, float], tuple[float, float]]


@dataclass(frozen=True, slots=True)
class PdfLimits:
    """What a file may hold at most."""

    pages: int = 2_000
    characters: int = 10_000_000


def read_pages(data: bytes, limits: PdfLimits) -> Iterator[Page]:
    """The pages of a PDF, one at a time.

    Raises:
        PayloadMalformedError: no PDF, or one without a page. PayloadUnsupportedError: it wants a password.
        PayloadTooLargeError: more pages or characters than allowed.
    """
    with _opened(data) as document:
        count = len(document)
        if count == 0:
            raise PayloadMalformedError("reading a PDF: it has no page")
        if count > limits.pages:
            raise PayloadTooLargeError(f"reading a PDF: {count} pages are over the limit of {limits.pages} (max_pages)")
        characters = 0
        for index in range(count):
            page = _page(document, index)
            characters += page.characters
            if characters > limits.characters:
                raise PayloadTooLargeError(f"reading a PDF: more than {limits.characters} characters of text")
            yield page


def _opened(data: bytes) -> pdfium.PdfDocument:
    try:
        return pdfium.PdfDocument(data)
    except pdfium.PdfiumError as error:
        if "password" in str(error).lower() or "security" in str(error).lower():
            raise PayloadUnsupportedError("reading a PDF: it is encrypted and wants a password") from error
        raise PayloadMalformedError(f"reading a PDF: {error}") from error


def _page(document: pdfium.PdfDocument, index: int) -> Page:
    try:
        page = document[index]
    except pdfium.PdfiumError as error:
        raise PayloadMalformedError(f"reading page {index + 1} of a PDF: {error}") from error
    try:
        width, height = page.get_size()
        seen = Page(index + 1, round(width, 2), round(height, 2))
        place = _placing(page)
        _see_objects(page, seen, place)
        text = page.get_textpage()
        try:
            _see_text(text, seen, place)
        finally:
            text.close()
        return seen
    finally:
        page.close()


def _placing(page: pdfium.PdfPage) -> Place:
    """From PDF coordinates (origin at the bottom left of the unturned page) to those of the page as it is shown."""
    left, bottom, right, top = page.get_bbox()  # what is shown; get_cropbox would not know an inherited box
    turns: dict[int, Place] = {
        0: lambda x, y: (x - left, top - y),
        90: lambda x, y: (y - bottom, x - left),
        180: lambda x, y: (right - x, y - bottom),
        270: lambda x, y: (top - y, right - x),
    }
    return turns[page.get_rotation() % 360]


def _see_objects(page: pdfium.PdfPage, seen: Page, place: Place) -> None:
    area = max(seen.width * seen.height, 1.0)
    for number, item in enumerate(page.get_objects(max_depth=4)):
        if number > _MAX_OBJECTS_OF_PAGE:
            raise PayloadTooLargeError(f"reading page {seen.number} of a PDF: more than {_MAX_OBJECTS_OF_PAGE} objects")
        if item.type == raw.FPDF_PAGEOBJ_IMAGE:
            x0, y0, x1, y1 = _bounds(item, place)
            seen.image_share = max(seen.image_share, min((x1 - x0) * (y1 - y0) / area, 1.0))
        elif item.type == raw.FPDF_PAGEOBJ_PATH:
            seen.drawings += 1
            box = _bounds(item, place)
            if box[3] - box[1] < 2.5 and box[2] - box[0] > 0.15 * seen.width:
                seen.rules.append(box)


def _bounds(item: pdfium.PdfObject, place: Place) -> Box:
    try:
        left, bottom, right, top = item.get_bounds()
    except pdfium.PdfiumError:
        return (0.0, 0.0, 0.0, 0.0)
    return _shown(place, left, bottom, right, top)


def _shown(place: Place, left: float, bottom: float, right: float, top: float) -> Box:
    (xa, ya), (xb, yb) = place(left, bottom), place(right, top)
    return (min(xa, xb), min(ya, yb), max(xa, xb), max(ya, yb))


def _see_text(text: pdfium.PdfTextPage, seen: Page, place: Place) -> None:
    count = text.count_chars()
    if count > _MAX_CHARACTERS_OF_PAGE:
        raise PayloadTooLargeError(
            f"reading page {seen.number} of a PDF: more than {_MAX_CHARACTERS_OF_PAGE} characters"
        )
    reader = _Reader(text.raw, seen, place)
    for index in range(count):
        reader.take(index)
    reader.end_run()


class _Reader:
    """Joins the characters of a page, in the order of its content, into runs."""

    def __init__(self, text: raw.FPDF_TEXTPAGE, seen: Page, place: Place) -> None:
        self._text = text
        self._seen = seen
        self._place = place
        self._run: Run | None = None
        self._pending_space = False
        self._object: int | None = None
        self._style = Style(0.0)
        self._is_seen = True
        self._x, self._y = ctypes.c_double(), ctypes.c_double()
        self._rect = raw.FS_RECTF()

    def take(self, index: int) -> None:
        code = raw.FPDFText_GetUnicode(self._text, index)
        if code in {10, 13}:
            return  # where a line ends is decided by where the next character stands
        is_hyphen = code in _PDFIUM_HYPHENS and raw.FPDFText_IsHyphen(self._text, index) == 1
        character = HYPHEN if is_hyphen else _character(code)
        if character.isspace():
            self._pending_space = True
            return
        self._look_up_style(index)
        if not self._is_seen:
            self._seen.hidden += 1
            self.end_run()
            return
        if not character:
            self._seen.characters += 1
            self._seen.unmapped += 1
            return
        if not is_hyphen and raw.FPDFText_HasUnicodeMapError(self._text, index) == 1:
            self._seen.unmapped += 1
        self._put(index, character)

    def _put(self, index: int, character: str) -> None:
        raw.FPDFText_GetCharOrigin(self._text, index, self._x, self._y)
        raw.FPDFText_GetLooseCharBox(self._text, index, self._rect)
        rect = self._rect
        x0, _, x1, _ = _shown(self._place, rect.left, rect.bottom, rect.right, rect.top)
        _, baseline = self._place(self._x.value, self._y.value)
        if not (0 <= baseline <= self._seen.height and x1 > 0 and x0 < self._seen.width):
            self._seen.hidden += 1  # beside the page, or not a number
            return
        self._seen.characters += 1
        run, size = self._run, self._style.size
        if run is None or self._starts_anew(run, x0, baseline):
            self.end_run()
            self._run = Run(character, x0, x1, baseline - 0.75 * size, baseline + 0.22 * size, baseline, self._style)
            self._pending_space = False
            return
        if self._pending_space or x0 - run.x1 > 0.22 * size:
            run.text += " "
        self._pending_space = False
        run.text += character
        run.x1 = max(run.x1, x1)

    def _starts_anew(self, run: Run, x0: float, baseline: float) -> bool:
        size = max(run.style.size, 1.0)
        return (
            self._style != run.style
            or abs(baseline - run.baseline) > 0.12 * size
            or x0 - run.x1 > _NEW_RUN_GAP * size
            or x0 < run.x1 - _LIGATURE * size
        )

    def end_run(self) -> None:
        if self._run is not None:
            if self._pending_space:
                self._run.text += " "
            self._seen.runs.append(self._run)
        self._run = None

    def _look_up_style(self, index: int) -> None:
        item = raw.FPDFText_GetTextObject(self._text, index)
        address = ctypes.cast(item, ctypes.c_void_p).value
        if address == self._object:
            return
        self._object = address
        matrix = raw.FS_MATRIX()
        scale = 1.0
        if raw.FPDFText_GetMatrix(self._text, index, matrix):
            scale = math.hypot(matrix.c, matrix.d) or 1.0
        size = raw.FPDFText_GetFontSize(self._text, index) * scale
        name = _font_name(item)
        is_bold = raw.FPDFText_GetFontWeight(self._text, index) >= _BOLD_WEIGHT or _says(
            name, "bold", "black", "heavy", "semibold", ".b", "-b"
        )
        self._style = Style(round(size, 1), is_bold, _says(name, "italic", "oblique", ".i", "-i"), name)
        self._is_seen = self._stands_upright(matrix) and not _is_clipped_away(item)

    def _stands_upright(self, matrix: raw.FS_MATRIX) -> bool:
        """Whether text runs from left to right on the page as it is shown."""
        (xa, ya), (xb, yb) = self._place(0.0, 0.0), self._place(matrix.a, matrix.b)
        return xb - xa > 0 and abs(math.atan2(yb - ya, xb - xa)) < _UPRIGHT


def _is_clipped_away(item: raw.FPDF_PAGEOBJECT) -> bool:
    """Whether none of a text object shows: a figure that was cut out of a page brings the rest of that page along."""
    clip = raw.FPDFPageObj_GetClipPath(item) if item else None
    if not clip:
        return False
    left, bottom, right, top = (ctypes.c_float() for _ in range(4))
    if not raw.FPDFPageObj_GetBounds(item, left, bottom, right, top):
        return False
    for path in range(min(raw.FPDFClipPath_CountPaths(clip), _MAX_CLIP_PATHS)):
        points = _points(clip, path)
        if points and (
            right.value < min(x for x, _ in points)
            or left.value > max(x for x, _ in points)
            or top.value < min(y for _, y in points)
            or bottom.value > max(y for _, y in points)
        ):
            return True
    return False


def _points(clip: raw.FPDF_CLIPPATH, path: int) -> list[tuple[float, float]]:
    """The points of a clipping path; none where it is so long that nobody cut along it by hand."""
    count = raw.FPDFClipPath_CountPathSegments(clip, path)
    if not 0 < count <= _MAX_CLIP_POINTS:
        return []
    x, y = ctypes.c_float(), ctypes.c_float()
    segments = (raw.FPDFClipPath_GetPathSegment(clip, path, number) for number in range(count))
    return [(x.value, y.value) for segment in segments if raw.FPDFPathSegment_GetPoint(segment, x, y)]


def _says(name: str, *words: str) -> bool:
    return any(word in name if len(word) > 2 else name.endswith(word) for word in words)


def _font_name(item: raw.FPDF_PAGEOBJECT) -> str:
    font = raw.FPDFTextObj_GetFont(item) if item else None
    if not font:
        return ""
    buffer = ctypes.create_string_buffer(128)
    raw.FPDFFont_GetBaseFontName(font, buffer, 128)
    return buffer.value.decode(errors="replace").lower()


def _character(code: int) -> str:
    """The character; nothing for what stands for none: controls, private use, halves of pairs, U+FFFD, U+FFFF."""
    if code in {9, 32, 0xA0}:
        return " "
    if code < 32 or 0x7F <= code < 0xA0 or code > 0x10FFFF or 0xD800 <= code < 0xE000 or code in {0xFFFD, 0xFFFF}:
        return ""
    if 0xE000 <= code < 0xF900:
        return ""
    return chr(code)
