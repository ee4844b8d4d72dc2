"""Study records of ClinicalTrials.gov, API v2, to documents."""

from medkg.parse.ctg.study import parse_study

__all__ = ["parse_study"]
