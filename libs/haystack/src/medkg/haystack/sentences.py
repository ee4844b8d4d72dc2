"""Where sentences end in biomedical English, by rule; other languages fall back on punctuation alone.

No model and no download. Every character that is not white space belongs to exactly one sentence. A doubtful full stop
does not end a sentence: two sentences kept together cost a passage nothing, a cut through ``Fig. 2`` or ``S. aureus``
does. Linear in the length of the text: runs are matched possessively, and a run is tried only at its beginning.
"""

import re

_ABBREVIATIONS = frozenset(
    re.findall(
        r"\w+",
        """
        al approx art assoc bull ca cf chap chem clin cor corp cv dept diam dist doc dr ed eds eq eqs equiv esp
        est et ex exp ext fig figs gen gov hosp ibid inc inj int intl jr lab lat ltd max med min mol mr mrs ms
        mt nat natl no nos obs op pat ph pharm pl pp prof prog pt pts ref refs rep resp rev sci sec sect sens sp
        spp sr ssp st std subsp supp suppl syst tab tabs temp univ var viz vol vols vs wt
        """,
    )
)
_END = re.compile(
    r"(?P<stop>(?<![.!?\u2026])[.!?\u2026]++[\"'\u201d\u2019)\]\u00bb]*+)(?P<gap>\s++)"  # with what closes
    r"|(?P<cjk>[\u3002\uff01\uff1f]++[\u300d\u300f\u201d\u2019\uff09]*+)\s*+"
    r"|(?P<lines>\n\s*+)"
)
_BULLET = re.compile(r"(?:[-*\u2022\u2023\u25aa\u2013\u2014]|\(?\d{1,3}[.)]|\(?[A-Za-z][.)])\s")
_OPENING = "\"'\u201c\u2018([\u00ab"
_LAST_WORD = re.compile(r"\S{1,24}\Z")
_DOTTED = re.compile(r"(?:[^\W\d_]\.)+\Z")  # an initial (S. aureus, J. Smith) or e.g., i.e., U.S.


def sentence_spans(text: str, start: int = 0, end: int | None = None) -> list[tuple[int, int]]:
    """The sentences of ``text[start:end]`` as offsets into ``text``, without the white space around them.

    A blank line, and a line break before a list mark, end a sentence too.
    """
    stop_at = len(text) if end is None else end
    spans: list[tuple[int, int]] = []
    begin = (
        start  # of the sentence being read: always a visible character, for every match takes the white space after it
    )
    while begin < stop_at and text[begin].isspace():
        begin += 1
    for match in _END.finditer(text, begin, stop_at):
        if match["lines"] is not None:
            cut = match.start() if _breaks_lines(text, match) else -1
        elif match["cjk"] is not None:
            cut = match.end("cjk")
        else:
            cut = match.end("stop") if _ends_sentence(text, begin, match) else -1
        if cut >= 0:
            _append_stripped(spans, text, begin, cut)
            begin = match.end()
    _append_stripped(spans, text, begin, stop_at)
    return spans


def _append_stripped(spans: list[tuple[int, int]], text: str, begin: int, end: int) -> None:
    if length := len(text[begin:end].rstrip()):
        spans.append((begin, begin + length))


def _breaks_lines(text: str, match: re.Match[str]) -> bool:
    return match["lines"].count("\n") > 1 or _BULLET.match(text, match.end()) is not None


def _ends_sentence(text: str, begin: int, match: re.Match[str]) -> bool:
    gap = match["gap"]
    if "\n" in gap and (gap.count("\n") > 1 or _BULLET.match(text, match.end())):
        return True
    following = text[match.end() : match.end() + 3].lstrip(_OPENING)[:1]
    if following.islower() or not (following.isalnum() or match["stop"][-1] != "."):
        return False
    if match["stop"] != ".":
        return True
    word = _LAST_WORD.search(text, max(begin, match.start() - 24), match.end("stop"))
    if word is None:
        return True
    last = word.group().lstrip(_OPENING)
    is_list_number = word.start() == begin and last[:-1].isdigit()
    return not (is_list_number or _DOTTED.match(last) or last[:-1].lower() in _ABBREVIATIONS)
