"""The kg service: what it offers, and how it is started."""

from medkg.contracts.stages import StageType
from medkg.runtime.service import serve


def main() -> None:
    """Entry point of ``medkg-kg`` and ``python -m medkg.kg``."""
    serve(StageType.KG)
