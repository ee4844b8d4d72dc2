"""How long is waited before a run is tried again."""

from random import SystemRandom

from tenacity import RetryCallState
from tenacity.wait import wait_base

from medkg.contracts.errors import MedkgError
from medkg.contracts.topology import Backoff, Policy

MAX_RETRY_AFTER_SECONDS = 3_600.0  # a peer that asks for more is asked again after an hour
_RANDOM = SystemRandom()


def wait_seconds(policy: Policy, retry: int, error: BaseException | None) -> float:
    """Seconds before the ``retry``-th retry (from 1): by the policy, or longer where the peer has said so.

    What a peer asks for (``Retry-After``) is kept to, above ``max_seconds`` too, up to MAX_RETRY_AFTER_SECONDS.
    """
    seconds = 0.0
    if policy.backoff is Backoff.LINEAR:
        seconds = policy.initial_seconds * retry
    elif policy.backoff is Backoff.EXPONENTIAL:
        seconds = policy.initial_seconds * 2 ** (retry - 1)
    seconds = min(seconds, policy.max_seconds)
    if policy.backoff is not Backoff.NONE:
        seconds += policy.jitter_seconds * _RANDOM.random()
    asked = error.retry_after_seconds if isinstance(error, MedkgError) else None
    return max(seconds, min(asked or 0.0, MAX_RETRY_AFTER_SECONDS))


class PolicyWait(wait_base):
    """The same for tenacity. ``done`` retries were made before it began to count."""

    def __init__(self, policy: Policy, done: int = 0) -> None:
        self._policy = policy
        self._done = done

    def __call__(self, retry_state: RetryCallState) -> float:
        error = retry_state.outcome.exception() if retry_state.outcome is not None else None
        return wait_seconds(self._policy, self._done + retry_state.attempt_number, error)
