"""How a command ends: the exit codes that scripts can rely on, and the errors that lead to them."""

from enum import IntEnum

from medkg.contracts.messages import Fault


class Exit(IntEnum):
    """Exit codes; `medkg --help` lists them."""

    OK = 0
    FAILED = 1
    USAGE = 2
    UNREACHABLE = 3
    NOT_FOUND = 4
    TIMED_OUT = 5
    INTERRUPTED = 130  # 128 + SIGINT, as shells count it
    READER_GONE = 141  # 128 + SIGPIPE


EXIT_CODES = (
    (Exit.OK, "it is done"),
    (Exit.FAILED, "what was asked for failed, or a job finished with failures"),
    (Exit.USAGE, "wrong usage: nothing was done"),
    (Exit.UNREACHABLE, "the fleet, or the part of it that was needed, is not reachable"),
    (Exit.NOT_FOUND, "there is no such job, entity, pipeline or dead letter"),
    (Exit.TIMED_OUT, "--timeout ran out; the job goes on"),
    (Exit.INTERRUPTED, "interrupted by Ctrl-C; a job that was submitted goes on"),
    (Exit.READER_GONE, "whoever read the output has gone, as in `medkg jobs | head -1`"),
)


class CommandError(Exception):
    """A command cannot do what was asked. ``message`` says what went wrong, ``hint`` what to do about it.

    ``code`` is the stable error code of the server or of :mod:`medkg.contracts.errors`, where there is one.
    """

    exit_code = Exit.FAILED

    def __init__(self, message: str, *, hint: str = "", code: str = "", faults: tuple[Fault, ...] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = code
        self.faults = faults


class UsageProblem(CommandError):
    """The command line, the configuration file or the environment says something that cannot be meant."""

    exit_code = Exit.USAGE


class FleetUnreachable(CommandError):
    """Nothing answers, or what answers is no medkg gateway."""

    exit_code = Exit.UNREACHABLE


class NotFound(CommandError):
    """The gateway knows no such thing."""

    exit_code = Exit.NOT_FOUND


class TimedOut(CommandError):
    """The user's own time limit ran out."""

    exit_code = Exit.TIMED_OUT
