"""The validate service: what it offers, and how it is started."""

from medkg.contracts.stages import StageType
from medkg.runtime.service import serve


def main() -> None:
    """Entry point of ``medkg-validate`` and ``python -m medkg.validate``."""
    serve(StageType.VALIDATE)
