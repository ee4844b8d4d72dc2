"""The embed service: what it offers, and how it is started."""

from medkg.contracts.stages import StageType
from medkg.runtime.service import serve


def main() -> None:
    """Entry point of ``medkg-embed`` and ``python -m medkg.embed``."""
    serve(StageType.EMBED)
