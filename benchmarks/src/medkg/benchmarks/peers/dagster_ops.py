# dagster is not installed where the types are checked
# mypy: ignore-errors
"""Peer (d): Dagster with its SQLite instance; a document is a run of a job of eight ops that do nothing.

Does: keeps a record of every run and step in its instance (SQLite, the default), which is what its users come for. The
ops run in this process (``execute_in_process``, values in memory), its quickest way; the default executor starts a
process an op and is slower by orders of magnitude. Its console log is kept to errors.

Does not: cross a process or a network between two ops, deliver messages, work on two documents at once.

Runs in an environment of its own (see dagster_environment.py) and therefore imports nothing of medkg. Standard input
holds the times at which documents arrive, as a JSON list of seconds; the result is one JSON object on standard output.
"""

import json
import os
import sys
import time
from pathlib import Path

from dagster import Config, DagsterInstance, RunConfig, job, op


class Arrival(Config):
    doc_id: str
    text: str


@op
def hop_0(config: Arrival) -> dict:
    return {"doc_id": config.doc_id, "text": config.text}


@op
def hop(document: dict) -> dict:
    return document


@job
def eight_hops():
    document = hop_0()
    for number in range(1, 8):
        document = hop.alias(f"hop_{number}")(document)


QUIET = {"console": {"config": {"log_level": "ERROR"}}}


def run(instance, doc_id, text):
    """One document."""
    config = RunConfig(ops={"hop_0": Arrival(doc_id=doc_id, text=text)}, loggers=QUIET)
    if not eight_hops.execute_in_process(run_config=config, instance=instance).success:
        raise SystemExit(f"the run of {doc_id} failed")


def main():
    """Run the documents one after another, each not before its time."""
    size, arrivals = int(sys.argv[1]), json.load(sys.stdin)
    text = ("lorem ipsum dolor sit amet " * (size // 27 + 1))[:size]
    latencies = []
    with DagsterInstance.get() as instance:  # its folder is DAGSTER_HOME
        run(instance, "warm-up", text)
        used, begun = time.process_time(), time.time()
        for number, arrival in enumerate(arrivals):
            time.sleep(max(0.0, begun + arrival - time.time()))
            run(instance, f"doc-{number:07d}", text)
            latencies.append((time.time() - begun - arrival) * 1000)
        seconds, used = time.time() - begun, time.process_time() - used
    rss = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    print(json.dumps({"seconds": seconds, "cpu_seconds": used, "rss_mib": round(rss, 1), "latencies_ms": latencies}))


if __name__ == "__main__":
    main()
