"""Articles in JATS (ANSI/NISO Z39.96) and its predecessor, the NLM DTD, to documents."""

from medkg.parse.jats.article import parse_article

__all__ = ["parse_article"]
