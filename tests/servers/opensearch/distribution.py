"""An OpenSearch node put together from Maven Central, once, in the user's cache: no Docker, no download by hand."""

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
import zipfile
from pathlib import Path

from .modules import MODULES, VERSION

POM = Path(__file__).with_name("pom.xml")
_JAVA = 17  # older ones do not run the k-NN plugin; for newer ones nothing was tried
_FETCH_TIMEOUT_SECONDS = 420


class OpenSearchUnavailable(Exception):
    """No OpenSearch can be started on this machine; the message says what would change that."""


def java_home() -> Path:
    """Where the Java is that runs it.

    Raises:
        OpenSearchUnavailable: there is none, or it is too old.
    """
    java = shutil.which("java")
    if java is None:
        raise OpenSearchUnavailable("no java on the PATH: install Java 17 (Debian: apt-get install openjdk-17-jre)")
    answer = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=60, check=False).stderr
    found = re.search(r'version "(\d+)', answer)
    if found is None or int(found[1]) < _JAVA:
        raise OpenSearchUnavailable(
            f"OpenSearch needs Java {_JAVA} or newer; {java} says: {answer.strip() or 'nothing'}"
        )
    return Path(java).resolve().parents[1]


def distribution() -> Path:
    """The folder of a node that was never started. Fetched at the first call (70 MB), found by all later ones.

    Raises:
        OpenSearchUnavailable: there is no Java 17, or no Maven and nothing in the cache, or the fetch failed.
    """
    java_home()
    recipe = POM.read_bytes() + Path(__file__).with_name("modules.py").read_bytes()
    folder = _cache_folder() / f"opensearch-{hashlib.sha256(recipe).hexdigest()[:12]}"
    if not folder.is_dir():
        _make(folder)
    return folder


def _make(folder: Path) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise OpenSearchUnavailable(
            "no mvn on the PATH to fetch OpenSearch: install Maven (Debian: apt-get install maven)"
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    # into a folder of our own, renamed when complete: a fetch that was cut off leaves nothing that looks whole
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="fetching-") as temporary:
        files = Path(temporary) / "files"
        _fetch(maven, files, folder.parent)
        with zipfile.ZipFile(files / f"opensearch-{VERSION}.zip") as archive:
            archive.extractall(temporary)
        node = Path(temporary) / f"opensearch-{VERSION}"
        for module in MODULES:
            to = node / "modules" / module.name
            to.mkdir(parents=True, exist_ok=True)
            for name in module.files:
                shutil.copy(files / name, to)
            (to / "plugin-descriptor.properties").write_text(module.descriptor())
            if module.policy:
                (to / "plugin-security.policy").write_text(module.policy)
        with zipfile.ZipFile(files / f"opensearch-knn-{VERSION}.0.zip") as archive:
            archive.extractall(node / "plugins" / "opensearch-knn")
        for path in (node / "bin").iterdir():
            path.chmod(0o755)
        _open_to_others(node)
        try:
            node.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise


def _fetch(maven: str, files: Path, cache: Path) -> None:
    command = [maven, "-B", "-q", "-C", "-f", str(POM), "dependency:copy-dependencies", "-DexcludeTransitive=true"]
    command.append(f"-DoutputDirectory={files}")
    if not os.access(Path.home(), os.W_OK):
        command.append(f"-Dmaven.repo.local={cache / 'maven'}")
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_FETCH_TIMEOUT_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise OpenSearchUnavailable(f"fetching OpenSearch took over {_FETCH_TIMEOUT_SECONDS} s") from error
    if done.returncode != 0 or not (files / f"opensearch-{VERSION}.zip").exists():
        raise OpenSearchUnavailable(f"fetching OpenSearch with Maven failed: {(done.stdout + done.stderr)[-2000:]}")


def _open_to_others(node: Path) -> None:
    """Readable by the user that a node runs as, where that is another one."""
    for path in (node, *node.rglob("*")):
        path.chmod(path.stat().st_mode | (0o055 if path.is_dir() else 0o044))


def _cache_folder() -> Path:
    given = os.environ.get("XDG_CACHE_HOME", "")
    if given:
        return Path(given) / "medkg"
    home = Path(os.environ.get("HOME", "/nonexistent"))
    if os.access(home, os.W_OK):
        return home / ".cache" / "medkg"
    return POM.parents[3] / ".medkg" / "cache"  # a user without a home: in the checkout, where git does not look
