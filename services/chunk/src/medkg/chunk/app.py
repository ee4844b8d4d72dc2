"""The chunk service: what it offers, and how it is started."""

from medkg.contracts.stages import StageType
from medkg.runtime.service import serve


def main() -> None:
    """Entry point of ``medkg-chunk`` and ``python -m medkg.chunk``."""
    serve(StageType.CHUNK)
