"""The names of all topics."""

JOBS = "medkg.jobs.v1"
GATE = "medkg.gate.v1"
DEAD_LETTER = "medkg.dead-letter.v1"
LIFECYCLE = "orchestration.events.v1"
MINERU_QUEUE = "mineru.queue.v1"
BREAKERS = "medkg.breakers.v1"  # compacted: the last state of each breaker
