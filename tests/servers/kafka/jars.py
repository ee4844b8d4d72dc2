"""The jars of a Kafka broker, fetched once by Maven into the user's cache."""

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

POM = Path(__file__).with_name("pom.xml")
OLDEST_JAVA = 17  # Kafka 4
_FETCH_TIMEOUT_SECONDS = 300


class KafkaUnavailable(Exception):
    """No Kafka can be started on this machine; the message says what would change that."""


def kafka_jars() -> Path:
    """The folder with the jars. Fetched at the first call (45 MB), found by all later ones.

    Raises:
        KafkaUnavailable: there is no Java 17, or no Maven and nothing in the cache, or the fetch failed.
    """
    _require_java()
    folder = _cache_folder() / f"kafka-{hashlib.sha256(POM.read_bytes()).hexdigest()[:12]}"
    if not folder.is_dir():
        _fetch(folder)
    return folder


def _require_java() -> None:
    java = shutil.which("java")
    if java is None:
        raise KafkaUnavailable("no java on the PATH: install a Java 17 or newer (Debian: apt-get install default-jre)")
    answer = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=60, check=False).stderr
    found = re.search(r'version "(\d+)', answer)
    if found is None or int(found[1]) < OLDEST_JAVA:
        raise KafkaUnavailable(f"Kafka needs Java {OLDEST_JAVA} or newer; {java} says: {answer.strip() or 'nothing'}")


def _cache_folder() -> Path:
    given = os.environ.get("XDG_CACHE_HOME", "")
    if given:
        return Path(given) / "medkg"
    home = Path(os.environ.get("HOME", "/nonexistent"))
    if os.access(home, os.W_OK):
        return home / ".cache" / "medkg"
    return POM.parents[3] / ".medkg" / "cache"  # a user without a home: in the checkout, where git does not look


def _fetch(folder: Path) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise KafkaUnavailable(
            "no mvn on the PATH to fetch Kafka's jars: install Maven (Debian: apt-get install maven)"
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Into a folder of our own, renamed when complete: a fetch that was cut off leaves nothing that looks whole, and of
    # two at once one wins.
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="fetching-") as temporary:
        whole = Path(temporary) / "jars"
        command = [
            maven,
            "-B",
            "-q",
            "-C",
            "-f",
            str(POM),
            "dependency:copy-dependencies",
            f"-DoutputDirectory={whole}",
        ]
        if not os.access(Path.home(), os.W_OK):
            command.append(f"-Dmaven.repo.local={folder.parent / 'maven'}")
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_FETCH_TIMEOUT_SECONDS, check=False)
        except subprocess.TimeoutExpired as error:
            raise KafkaUnavailable(f"fetching Kafka's jars took over {_FETCH_TIMEOUT_SECONDS} s") from error
        if done.returncode != 0 or not list(whole.glob("kafka_*.jar")):
            raise KafkaUnavailable(f"fetching Kafka's jars with Maven failed: {(done.stdout + done.stderr)[-2000:]}")
        try:
            whole.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
