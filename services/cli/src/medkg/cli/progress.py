"""How fast a job goes and when it will be done, from looking at it now and then. No I/O."""

from collections import deque
from dataclasses import dataclass

from medkg.cli.answers import Job, StageCount

WINDOW_SECONDS = 15.0
FINISHED = ""  # the series of documents that reached an end of the pipeline


@dataclass(frozen=True, slots=True)
class StageProgress:
    """One line of the display. ``total`` is None while nobody knows how many there will be."""

    stage: str
    done: int
    total: int | None
    unit: str
    rate: float
    counts: StageCount


class JobProgress:
    """Rates over the last seconds. Feed every look at the job to :meth:`observe`, in order of time."""

    def __init__(self) -> None:
        self._series: dict[str, deque[tuple[float, int]]] = {}

    def observe(self, job: Job, at_seconds: float) -> None:
        self._note(FINISHED, at_seconds, job.counts.finished)
        for stage in job.stages:
            self._note(stage.stage, at_seconds, stage.done)

    def rate(self, name: str = FINISHED) -> float:
        """Per second, of a stage or (without a name) of finished documents."""
        series = self._series.get(name)
        if not series or series[-1][0] <= series[0][0]:
            return 0.0
        return max(0.0, (series[-1][1] - series[0][1]) / (series[-1][0] - series[0][0]))

    def stages(self, job: Job) -> list[StageProgress]:
        """Every stage of the job in pipeline order. The first one reads pages, the others documents."""
        lines = []
        for position, stage in enumerate(job.stages):
            if position == 0:
                total, unit = job.pages.done if job.pages.last_seen else None, "page"
            else:
                total, unit = expected_documents(job), "document"
            lines.append(StageProgress(stage.stage, stage.done, total, unit, self.rate(stage.stage), stage))
        return lines

    def seconds_left(self, job: Job) -> float | None:
        """Until the last document is done, at the present rate; None where that cannot be told."""
        expected, rate = expected_documents(job), self.rate()
        if job.is_finished or expected is None or rate <= 0:
            return None
        return max(0.0, (expected - job.counts.finished) / rate)

    def _note(self, name: str, at_seconds: float, value: int) -> None:
        series = self._series.setdefault(name, deque())
        series.append((at_seconds, value))
        while len(series) > 2 and series[1][0] <= at_seconds - WINDOW_SECONDS:
            series.popleft()


def expected_documents(job: Job) -> int | None:
    """How many documents the job will have, where its source has said so or been read to the end."""
    if job.pages.last_seen or job.is_finished:
        return job.counts.documents
    if job.pages.total_records is not None:
        return max(job.pages.total_records, job.counts.documents)
    return None
