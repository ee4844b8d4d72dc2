"""A topology as a picture: :func:`as_text` for the terminal, :func:`as_svg` for pages."""

from medkg.contracts.topology_svg import as_svg
from medkg.contracts.topology_text import as_text

__all__ = ["as_svg", "as_text"]
