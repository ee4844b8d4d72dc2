"""How a stage is retried, timed out, broken off and slowed down, as its policy in resilience.yaml says.

A run of a stage passes, in this order::

    limit      a turn by the fleet-wide rate                      limits.py, shares.py
    breaker    not while what it depends on is down               breaker.py, breaker_news.py
    timeout    coroutines are cancelled, threads interrupted      attempts.py, threads.py
    attempt    and again, here or later by way of the router      attempts.py, backoff.py

``guards.py`` puts limit and breaker together, for a stage as a whole or for each peer that it calls (``peers.py``, for
implementations of stages). ``failure_limits.py`` stops a worker that fails document after document.
"""
