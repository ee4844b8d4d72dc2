"""Looking for what is lost again and again, beside the projection; one ledger service at a time does it."""

import asyncio
import logging

from prometheus_client import CollectorRegistry, Counter

from medkg.contracts.errors import ResourceUnavailableError
from medkg.ledger.reconcile import Finding, Reconciler
from medkg.ledger.settings import LedgerSettings
from medkg.storage.ledger_suspects import only_one

log = logging.getLogger(__name__)


class Schedule:
    """Runs a reconciler until cancelled. A Kafka or database that does not answer is waited for."""

    def __init__(self, reconciler: Reconciler, settings: LedgerSettings, registry: CollectorRegistry) -> None:
        self._reconciler = reconciler
        self._settings = settings
        self._lost = Counter(
            "medkg_ledger_lost_total", "Losses that the reconciler found, by repair.", ["repair"], registry=registry
        )

    async def run(self) -> None:
        """Look every ``reconcile_minutes``, for the first time after as many."""
        while self._settings.reconcile_minutes:
            await asyncio.sleep(self._settings.reconcile_minutes * 60)
            await self.look()

    async def look(self) -> None:
        """Look once, unless another process is looking."""
        try:
            async with only_one(self._reconciler.engine) as is_mine:
                if is_mine:
                    older_than = self._settings.lost_minutes * 60
                    await self._reconciler.run(older_than_seconds=older_than, apply=True, say=self._note)
        except ResourceUnavailableError as error:
            log.warning("looking for what is lost: %s", error.message)

    def _note(self, finding: Finding) -> None:
        self._lost.labels(finding.repair).inc()
        about = {"job_id": finding.job_id, "doc_id": finding.doc_id}
        log.warning("lost: %s (%s); %s", finding.what, finding.why, finding.how, extra=about)
