"""The index service: what it offers, and how it is started."""

from medkg.contracts.stages import StageType
from medkg.runtime.service import serve


def main() -> None:
    """Entry point of ``medkg-index`` and ``python -m medkg.index``."""
    serve(StageType.INDEX)
