"""The recorded outputs of MinerU in the corpus, by the PDF they were made from."""

import hashlib
from pathlib import Path

from tests.servers.mineru.server import Recorded

PAPERS = ("naacl-long.122", "naacl-long.127")
_NAMES = {"content_list": "content_list.json", "middle_json": "middle.json"}


def recorded_papers(corpus: Path, names: dict[str, str] | None = None) -> dict[str, Recorded]:
    """What MinerU 3.4.4 made of two papers, as the answer of its API has it; ``middle.json`` only where it was kept."""
    found = {}
    for paper in PAPERS:
        folder = corpus / "mineru" / paper
        files = {
            name: (folder / file).read_text() for name, file in (names or _NAMES).items() if (folder / file).is_file()
        }
        found[hashlib.sha256((folder / "paper.pdf").read_bytes()).hexdigest()] = Recorded(files)
    return found
