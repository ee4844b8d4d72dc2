"""Look at a job until it ends: patient with a gateway that restarts, strict about the user's own time limit."""

from collections.abc import Callable

from medkg.cli.answers import Job
from medkg.cli.client import GatewayClient
from medkg.cli.exits import FleetUnreachable, NotFound, TimedOut
from medkg.cli.session import Clock

PATIENCE_SECONDS = 30.0  # a gateway that is restarted, or a ledger that has not heard of a new job yet
_FIRST_LOOK_SECONDS, _LAST_LOOK_SECONDS = 0.2, 1.0


class Follower:
    """Follows one job. ``last`` is what was seen last, also after an error or Ctrl-C."""

    def __init__(self, client: GatewayClient, job_id: str, clock: Clock) -> None:
        self.job_id = job_id
        self.last: Job | None = None
        self._client = client
        self._clock = clock

    def run(self, show: Callable[[Job | None], None], *, timeout_seconds: float | None, is_new: bool = False) -> Job:
        """Until the job ends. ``show`` is called after each look, with None while a job is not known yet.

        ``is_new``: the job was submitted a moment ago, so that not knowing it is no error at first.

        Raises:
            TimedOut: ``timeout_seconds`` ran out; the job goes on.
            NotFound, FleetUnreachable: the job, or the gateway, stayed away.
        """
        began = good = self._clock.monotonic()
        pause = _FIRST_LOOK_SECONDS
        while True:
            try:
                self.last = self._client.job(self.job_id).value
                good = self._clock.monotonic()
            except NotFound:
                if not is_new or self.last is not None or self._clock.monotonic() - good > PATIENCE_SECONDS:
                    raise
            except FleetUnreachable:
                if not (is_new or self.last) or self._clock.monotonic() - good > PATIENCE_SECONDS:
                    raise
            show(self.last)
            if self.last is not None and self.last.is_finished:
                return self.last
            left = None if timeout_seconds is None else timeout_seconds - (self._clock.monotonic() - began)
            if left is not None and left <= 0:
                raise TimedOut(
                    f"job {self.job_id} was not done within {timeout_seconds:g} s; it goes on",
                    hint=f"look again with `medkg watch {self.job_id}`",
                )
            self._clock.sleep(pause if left is None else min(pause, left))
            pause = min(pause * 1.2, _LAST_LOOK_SECONDS)
