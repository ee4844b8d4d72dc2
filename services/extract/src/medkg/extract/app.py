"""The extract service: what it offers, and how it is started."""

from medkg.contracts.stages import StageType
from medkg.runtime.service import serve


def main() -> None:
    """Entry point of ``medkg-extract`` and ``python -m medkg.extract``."""
    serve(StageType.EXTRACT)
