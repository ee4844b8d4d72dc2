"""Why a worker stops by itself."""


class WorkerStopped(Exception):
    """A worker must not go on. The message is its last word: what, how many, why, and what to do.

    Not one of medkg's errors: those become dead letters, this one ends the process with nothing stored.
    """
