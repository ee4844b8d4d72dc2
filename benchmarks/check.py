"""`make benchmark-check`: has medkg become slower, measured against its peers?

Measures medkg and the quick peers (throughput only, median of three), and compares the ratios with the recorded ones in
benchmarks/recorded.json. A throughput ratio may be worse by 30 %, a ratio of CPU by 15 %.

    make benchmark-check                                  measure, then compare (5 min)
    make benchmark-check ARGS="--results FILE"            compare results that are there
    make benchmark-check ARGS="--results FILE --record"   record them as what later ones are compared with

Exit codes: 0 all within tolerance, 1 a regression, 2 nothing to compare.
"""

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medkg.benchmarks.ratios import changes, incomparable, ratios_of, to_record
from medkg.benchmarks.report import change_lines

RECORDED = Path(__file__).with_name("recorded.json")
_QUICK = ("--only", "medkg,bare,faststream-batch", "--parts", "throughput", "--repeats", "3")


def main(given: Sequence[str] | None = None) -> int:
    """Compare, or record; see the module's text."""
    parser = argparse.ArgumentParser(
        prog="make benchmark-check", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=Path, help="of `make benchmark`, such as benchmarks/results/latest.json")
    parser.add_argument("--record", action="store_true", help="write the ratios to benchmarks/recorded.json")
    parser.add_argument("--recorded", type=Path, default=RECORDED, help="the file to compare with or write to")
    asked = parser.parse_args(given)
    recorded = _read(asked.recorded) if asked.recorded.exists() else None
    if recorded is None and not asked.record:
        print(f"nothing is recorded in {asked.recorded}: measure, then --results FILE --record", file=sys.stderr)
        return 2
    results = _read(asked.results) if asked.results else _measured(recorded)
    if asked.record:
        asked.recorded.write_text(json.dumps(to_record(results), indent=2) + "\n")
        print(f"recorded in {asked.recorded}")
        return 0
    assert recorded is not None
    return compared(recorded, results)


def compared(recorded: dict[str, Any], results: dict[str, Any]) -> int:
    """Print the comparison; the exit code."""
    if reason := incomparable(recorded, results):
        print(f"cannot compare: {reason}", file=sys.stderr)
        return 2
    found = changes(recorded["ratios"], ratios_of(results))
    if not found:
        print("cannot compare: the two runs have no ratio in common", file=sys.stderr)
        return 2
    print("\n".join(change_lines(found)))
    return 1 if any(change.is_regression for change in found) else 0


def _measured(recorded: dict[str, Any] | None) -> dict[str, Any]:
    from benchmarks.run import arguments_of, measure

    same = ("--documents", str(recorded["settings"]["documents"])) if recorded else ()
    return asyncio.run(measure(arguments_of([*_QUICK, *same])))


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found


if __name__ == "__main__":
    sys.exit(main())
