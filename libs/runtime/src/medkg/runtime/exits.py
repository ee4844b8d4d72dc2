"""How the process of a service ends, for whoever started it."""

from enum import IntEnum


class Exit(IntEnum):
    STOPPED = 0  # told to, and drained
    DIED = 1  # a task of the worker died of a bug
    NOT_STARTED = 2  # a setting cannot work, or what it needs was away for longer than MEDKG_START_WAIT_SECONDS
    NO_GPU = 3  # the default implementation needs a GPU, and there is none
    FAILING = 4  # too many documents failed in a row, or threads were given up: see the last line of the log
