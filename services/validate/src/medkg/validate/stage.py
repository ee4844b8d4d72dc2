"""The validate stage: measures a document and stops one that misses a threshold."""

from medkg.contracts.context import StageContext
from medkg.contracts.document import Document, QualityReport
from medkg.contracts.errors import QualityError
from medkg.contracts.topology import Checks
from medkg.validate.measures import measures_of


class CheckDocument:
    """Holds documents against the thresholds of a topology. Pure, and safe in many threads."""

    def __init__(self, checks: Checks) -> None:
        self._checks = checks

    def execute(self, ctx: StageContext, document: Document) -> QualityReport:
        """What was measured. A document that references alone make up counts as empty.

        Raises:
            QualityError: a threshold is missed; every one that is stands in the message, with measure and value.
        """
        measures = measures_of(document)
        if faults := faults_of(measures, self._checks):
            name = document.source_id or document.doc_id
            raise QualityError(
                f"validating {name}: {'; '.join(faults)}. Look at the record, or change `checks` in the topology",
                **measures,
            )
        return QualityReport(measures=measures, warnings=_warnings(measures))


def faults_of(measures: dict[str, float], checks: Checks) -> list[str]:
    """Each missed threshold: the measure, its value, and the threshold by its name in the topology."""
    least = [
        ("characters", "min_characters", checks.min_characters),
        ("sections", "min_sections", checks.min_sections),
        ("letter_ratio", "min_letter_ratio", checks.min_letter_ratio),
    ]
    most = [
        ("characters", "max_characters", checks.max_characters),
        ("replacement_ratio", "max_replacement_ratio", checks.max_replacement_ratio),
        ("repeated_line_ratio", "max_repeated_line_ratio", checks.max_repeated_line_ratio),
    ]
    faults = [
        f"{measure} is {measures[measure]:g}, under {threshold} {limit:g}"
        for measure, threshold, limit in least
        if measures[measure] < limit
    ]
    faults += [
        f"{measure} is {measures[measure]:g}, over {threshold} {limit:g}"
        for measure, threshold, limit in most
        if limit is not None and measures[measure] > limit
    ]
    if checks.require_title and not measures["has_title"]:
        faults.append("has_title is 0, but require_title is set")
    return faults


def _warnings(measures: dict[str, float]) -> tuple[str, ...]:
    """What stops nothing, but is worth a look."""
    return () if measures["has_title"] else ("the document has no title",)
