"""Which dead letters a command is about: the options that all its subcommands share."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import typer

from medkg.cli.answers import DeadLetterEntry
from medkg.cli.client import GatewayClient
from medkg.cli.exits import NotFound, UsageProblem
from medkg.cli.terminal import clean

PAGE = 1_000  # letters asked for at once
_AGE = re.compile(r"(\d{1,9}(?:\.\d{1,3})?)([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}

JobOption = Annotated[str, typer.Option("--job", metavar="JOB", help="Of this job, by the beginning of its id.")]
StageOption = Annotated[str, typer.Option("--stage", metavar="NAME", help="Of this stage.")]
CodeOption = Annotated[str, typer.Option("--code", metavar="CODE", help="With this error code.")]
OlderOption = Annotated[str, typer.Option("--older-than", metavar="AGE", help="Dead for longer: 90s, 15m, 2h, 3d.")]
NewerOption = Annotated[str, typer.Option("--newer-than", metavar="AGE", help="Dead for less than this.")]


@dataclass(frozen=True, slots=True)
class LetterFilter:
    """What was asked for. ``job_id`` is a whole id."""

    job_id: str = ""
    stage: str = ""
    code: str = ""
    older_than: str = ""
    newer_than: str = ""
    state: str = ""

    @property
    def is_empty(self) -> bool:
        return not (self.job_id or self.stage or self.code or self.older_than or self.newer_than)

    def query(self) -> dict[str, str | float]:
        """As the gateway wants it.

        Raises:
            UsageProblem: an age that is none.
        """
        asked: dict[str, str | float] = {
            "job_id": self.job_id,
            "stage": self.stage,
            "code": self.code,
            "state": self.state,
        }
        for name, age in (("older_than_seconds", self.older_than), ("newer_than_seconds", self.newer_than)):
            if age:
                asked[name] = seconds_of(age)
        return asked

    def letters(self, client: GatewayClient, limit: int) -> Iterator[DeadLetterEntry]:
        """All that match, newest first, at most ``limit``."""
        asked, after = self.query(), ""
        while limit > 0:
            found = client.dead_letters(min(limit, PAGE), **asked, after=after).value.dead_letters
            yield from found
            limit -= len(found)
            if len(found) < PAGE:
                return
            after = str(found[-1].id)


def seconds_of(age: str) -> float:
    """Seconds of an age such as ``90s``, ``15m``, ``2h`` or ``3d``.

    Raises:
        UsageProblem: it is none.
    """
    found = _AGE.fullmatch(age.strip())
    if found is None:
        raise UsageProblem(f"{clean(age)!r} is no age", hint="a number and a unit: 90s, 15m, 2h, 3d")
    return float(found[1]) * _SECONDS[found[2]]


def letter_of(client: GatewayClient, letter_id: str) -> tuple[DeadLetterEntry, object]:
    """One letter, and as it came.

    Raises:
        NotFound: there is none of this id.
    """
    answer = client.dead_letters(1, id=letter_id)
    if not answer.value.dead_letters:
        raise NotFound(f"no dead letter {clean(letter_id)!r}", hint="see `medkg dead-letters list`")
    return answer.value.dead_letters[0], answer.raw["dead_letters"][0]
