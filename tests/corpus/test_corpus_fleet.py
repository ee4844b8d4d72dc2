"""Every real record beside the checkout goes through the whole fleet; what is no record is refused and recorded."""

from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.corpus, pytest.mark.slow, pytest.mark.timeout(300)]
in_process = pytest.mark.parametrize("broker", ["in-process"], indirect=True)


@in_process
async def test_every_study_and_article_ends_in_both_stores(start_fleet: Any, corpus: Path) -> None:
    selection = {"paths": [str(corpus / "ctg"), str(corpus / "jats")]}
    async with start_fleet() as fleet:
        job = await fleet.ended(await fleet.submit(selection), seconds=200)
        refused = await fleet.rows(
            "SELECT uri, failure_code, failure_message FROM documents WHERE state NOT IN ('completed', 'skipped')"
        )
        assert all("/legacy-v1/" in row.uri and row.failure_message for row in refused), refused
        assert len(refused) == len(list((corpus / "ctg" / "legacy-v1").iterdir()))
        assert (job.failed, job.completed) == (0, job.documents - len(refused))
        for stage in ("index", "kg"):
            runs = await fleet.rows(
                "SELECT count(DISTINCT doc_id) AS documents FROM stage_runs "
                "WHERE stage = :stage AND state = 'completed'",
                stage=stage,
            )
            assert runs[0].documents == job.completed

        again = await fleet.ended(await fleet.submit(selection), seconds=200)
        assert (again.skipped, again.completed, again.rejected) == (job.completed, 0, job.rejected)


@in_process
async def test_hostile_files_are_refused_with_a_reason_and_the_fleet_goes_on(start_fleet: Any, corpus: Path) -> None:
    async with start_fleet() as fleet:
        job = await fleet.ended(await fleet.submit({"paths": [str(corpus / "bad")]}), seconds=200)
        assert job.state == "completed_with_failures"
        assert job.failed == 0
        passed = await fleet.rows("SELECT uri FROM documents WHERE state = 'completed'")
        assert {Path(row.uri).suffix for row in passed} <= {".txt"}  # a list of URLs is text, whatever the URLs are
        refused = await fleet.rows("SELECT failure_code, failure_message FROM documents WHERE state = 'rejected'")
        assert len(refused) == job.rejected > 200
        assert all(row.failure_code and row.failure_message for row in refused)
