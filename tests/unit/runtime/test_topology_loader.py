"""The loader: one instance until the file changes, valid or refused, never half."""

import os
import threading
from pathlib import Path

import pytest

from medkg.contracts.errors import ConfigurationError, PipelineConfigError
from medkg.runtime.topologies import TopologyLoader, default_topologies_dir

POLICIES = "policies:\n  default: {}\n  gpu: {attempts: 1}\n"


def topology(
    name: str = "auto", *, version: str = "1.0", sources: str = "files", policy: str = "default", stage: str = "ingest"
) -> str:
    return (
        f'version: "{version}"\nname: {name}\napplicable_sources: [{sources}]\nstages:\n'
        f"  - {{name: {stage}, type: IngestStage, policy: {policy}}}\n"
    )


class Folder:
    """A folder of topologies, its loader, and the loader's clock."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.now = 0.0
        self.loader = TopologyLoader(path, check_seconds=1.0, clock=lambda: self.now)

    def write(self, name: str, text: str) -> None:
        """As careful writers do it: aside, then swapped."""
        target = self.path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = target.with_suffix(".new")
        aside.write_text(text, encoding="utf-8")
        aside.replace(target)

    def wait(self) -> None:
        self.now += 1.0


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    found = Folder(tmp_path)
    found.write("resilience.yaml", POLICIES)
    found.write("auto.yaml", topology())
    return found


def test_the_same_name_gives_the_same_instance_until_the_file_changes(folder: Folder) -> None:
    first = folder.loader.get("auto")
    folder.wait()
    assert folder.loader.get("auto") is first

    folder.write("other.yaml", topology("other", sources="core"))
    folder.wait()
    assert folder.loader.get("auto") is first  # another file is another matter

    folder.write("auto.yaml", topology(version="1.1"))
    folder.wait()
    assert folder.loader.get("auto").version == "1.1"


def test_a_touched_file_with_the_same_content_keeps_its_instance(folder: Folder) -> None:
    first = folder.loader.get("auto")
    folder.write("auto.yaml", "# a new comment\n" + topology())
    folder.wait()
    assert folder.loader.get("auto") is first


def test_files_are_looked_at_at_most_once_in_the_interval(folder: Folder) -> None:
    folder.loader.get("auto")
    folder.write("auto.yaml", topology(version="1.1"))
    folder.now += 0.9
    assert folder.loader.get("auto").version == "1.0"
    folder.now += 0.1
    assert folder.loader.get("auto").version == "1.1"


def test_a_change_of_the_same_size_is_noticed(folder: Folder) -> None:
    folder.loader.get("auto")
    path = folder.path / "auto.yaml"
    before = path.stat()
    path.write_text(topology(version="1.7"), encoding="utf-8")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    folder.wait()
    assert folder.loader.get("auto").version == "1.7"


def test_a_broken_change_is_refused_and_the_old_one_stays_in_force(folder: Folder) -> None:
    first = folder.loader.get("auto")
    folder.write("auto.yaml", topology(version="1.1", policy="nowhere") + "  - {name: b}\n")
    folder.wait()

    assert folder.loader.get("auto") is first
    (problem,) = folder.loader.problems()
    assert (problem.file, problem.in_force) == ("auto.yaml", "auto 1.0")
    assert [fault.line for fault in problem.faults] == [5, 6]
    assert "auto.yaml:5:" in problem.message

    folder.write("auto.yaml", topology(version="1.2"))
    folder.wait()
    assert folder.loader.get("auto").version == "1.2"
    assert folder.loader.problems() == ()


def test_a_topology_that_never_was_in_order_raises_its_faults(folder: Folder) -> None:
    folder.write("broken.yaml", topology("broken", policy="nowhere"))

    with pytest.raises(PipelineConfigError) as caught:
        folder.loader.get("broken")
    assert [fault.file for fault in caught.value.faults] == ["broken.yaml"]
    assert folder.loader.names() == ("auto",)
    assert folder.loader.get("auto")  # the others are not touched by it


def test_a_file_has_the_name_of_its_topology(folder: Folder) -> None:
    folder.write("other.yaml", topology("auto", sources="core"))
    assert "a file has the name of its topology" in folder.loader.problems()[0].message


@pytest.mark.parametrize(
    "name", ["../auto", "/etc/passwd", "auto\n", "Auto", "", "a" * 64, "auto.yaml", "a\0b", "versions/x"]
)
def test_names_that_no_topology_can_have_are_refused(folder: Folder, name: str) -> None:
    with pytest.raises(PipelineConfigError, match="is not a name"):
        folder.loader.get(name)


def test_an_unknown_name_is_met_with_what_was_probably_meant(folder: Folder) -> None:
    with pytest.raises(PipelineConfigError, match=r"there is no atuo\.yaml; did you mean 'auto'\?"):
        folder.loader.get("atuo")


def test_a_deleted_topology_is_gone(folder: Folder) -> None:
    folder.loader.get("auto")
    (folder.path / "auto.yaml").unlink()
    folder.wait()
    with pytest.raises(PipelineConfigError, match="there is no auto"):
        folder.loader.get("auto")


def test_other_files_are_left_alone(folder: Folder) -> None:
    for name in ("README.md", ".auto.yaml.swp", "Upper.yaml", "x.yml"):
        (folder.path / name).write_text("{", encoding="utf-8")
    (folder.path / "folder.yaml").mkdir()
    os.mkfifo(folder.path / "pipe.yaml")  # opening it would wait for ever

    assert folder.loader.names() == ("auto",)
    assert folder.loader.problems() == ()


def test_links_are_followed_and_a_swapped_link_is_a_change(folder: Folder, tmp_path: Path) -> None:
    """As a mounted ConfigMap changes: a link to the data is swapped."""
    for version in ("1.0", "1.1"):
        folder.write(f"..{version}/linked.yaml", topology("linked", version=version, sources="core"))
    (tmp_path / "..data").symlink_to("..1.0")
    (tmp_path / "linked.yaml").symlink_to("..data/linked.yaml")
    assert folder.loader.get("linked").version == "1.0"

    (tmp_path / "..next").symlink_to("..1.1")
    (tmp_path / "..next").replace(tmp_path / "..data")
    folder.wait()
    assert folder.loader.get("linked").version == "1.1"


@pytest.mark.parametrize(
    ("data", "words"), [(b"name: \xff", "auto.yaml:1:7: not UTF-8"), (b"#" * 1_100_000, "over the limit")]
)
def test_a_file_that_cannot_be_text_is_a_fault(folder: Folder, data: bytes, words: str) -> None:
    (folder.path / "auto.yaml").write_bytes(data)
    assert words in folder.loader.problems()[0].message


# -- versions ---------------------------------------------------------------------------------------------------------


def test_older_versions_are_found_in_their_folders_newest_first(folder: Folder) -> None:
    folder.write("versions/2026-01-01/auto.yaml", topology(version="0.8", stage="old"))
    folder.write("versions/2026-02-01/auto.yaml", topology(version="0.9", stage="first"))
    folder.write("versions/2026-03-01/auto.yaml", topology(version="0.9", stage="second"))
    folder.write("versions/latest/auto.yaml", topology(version="0.7"))

    assert folder.loader.get("auto", "1.0") is folder.loader.get("auto")
    assert folder.loader.get("auto", "0.9").entry.name == "second"
    assert folder.loader.get("auto", "0.8") is folder.loader.get("auto", "0.8")
    with pytest.raises(PipelineConfigError, match=r"no version '0\.7'"):
        folder.loader.get("auto", "0.7")
    with pytest.raises(PipelineConfigError, match="no version"):
        folder.loader.get("auto", "../../x")


def test_a_broken_older_version_does_not_hide_the_others(folder: Folder) -> None:
    folder.write("versions/2026-01-01/auto.yaml", topology(version="0.8"))
    folder.write("versions/2026-02-01/auto.yaml", topology(version="0.9", policy="nowhere"))

    assert folder.loader.get("auto", "0.8").version == "0.8"
    with pytest.raises(PipelineConfigError) as caught:
        folder.loader.get("auto", "0.9")
    assert caught.value.faults[0].file == "versions/2026-02-01/auto.yaml"


# -- policies ---------------------------------------------------------------------------------------------------------


def test_policies_are_swapped_whole_or_refused(folder: Folder) -> None:
    first = folder.loader.policies()
    folder.write("resilience.yaml", POLICIES + "  extra: {attempts: 99}\n")
    folder.wait()
    assert folder.loader.policies() is first
    assert folder.loader.problems()[0].in_force == "the policies before"

    folder.write("resilience.yaml", POLICIES + "  extra: {attempts: 9}\n")
    folder.wait()
    assert folder.loader.policies().policies["extra"].attempts == 9
    assert folder.loader.problems() == ()


def test_a_policy_that_is_in_use_is_not_taken_away(folder: Folder) -> None:
    folder.write("auto.yaml", topology(policy="gpu"))
    first = folder.loader.get("auto")
    folder.write("resilience.yaml", "policies:\n  default: {}\n")
    folder.wait()

    assert "gpu" in folder.loader.policies().policies
    assert folder.loader.get("auto") is first
    assert [problem.file for problem in folder.loader.problems()] == ["resilience.yaml"]
    assert "the policy 'gpu' is gone, but stage 'ingest' of auto.yaml has it" in folder.loader.problems()[0].message


def test_a_policy_and_the_stage_that_wants_it_may_come_and_go_together(folder: Folder) -> None:
    folder.loader.get("auto")
    folder.write("auto.yaml", topology(version="1.1", policy="fresh"))
    folder.write("resilience.yaml", "policies:\n  fresh: {}\n")
    folder.wait()

    assert folder.loader.get("auto").version == "1.1"
    assert folder.loader.problems() == ()

    folder.write("auto.yaml", topology(version="1.2"))
    folder.write("resilience.yaml", POLICIES)
    folder.wait()
    assert folder.loader.get("auto").version == "1.2"
    assert folder.loader.problems() == ()


def test_a_topology_that_waited_for_its_policy_is_taken_when_it_comes(folder: Folder) -> None:
    folder.write("auto.yaml", topology(version="1.1", policy="fresh"))
    assert folder.loader.names() == ()
    folder.write("resilience.yaml", POLICIES + "  fresh: {}\n")
    folder.wait()
    assert folder.loader.get("auto").version == "1.1"


def test_without_policies_nothing_can_be_used(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.write("auto.yaml", topology())

    for use in (folder.loader.policies, lambda: folder.loader.get("auto"), lambda: folder.loader.resolve("files")):
        with pytest.raises(PipelineConfigError, match=r"resilience\.yaml: is not there"):
            use()


# -- sources ----------------------------------------------------------------------------------------------------------


def test_the_topology_with_the_fewest_sources_has_a_source_and_auto_gives_way(folder: Folder) -> None:
    folder.write("auto.yaml", topology(sources="files"))
    folder.write("wide.yaml", topology("wide", sources="files, core, unpaywall"))
    folder.write("narrow.yaml", topology("narrow", sources="core"))

    assert folder.loader.resolve("files").name == "wide"  # auto has fewer, but gives way
    assert folder.loader.resolve("core").name == "narrow"
    assert folder.loader.resolve("unpaywall").name == "wide"
    with pytest.raises(PipelineConfigError, match=r"none has the source 'fiels'.*did you mean 'files'"):
        folder.loader.resolve("fiels")


def test_a_draw_from_the_start_is_a_problem_and_a_fault_for_that_source_alone(folder: Folder) -> None:
    folder.write("one.yaml", topology("one", sources="core"))
    folder.write("two.yaml", topology("two", sources="core"))

    with pytest.raises(PipelineConfigError, match="one and two have the same claim to the source 'core'"):
        folder.loader.resolve("core")
    assert folder.loader.resolve("files").name == "auto"
    assert folder.loader.get("one").name == "one"
    assert len(folder.loader.problems()) == 1


def test_a_change_that_would_make_a_draw_is_refused(folder: Folder) -> None:
    folder.write("one.yaml", topology("one", sources="core"))
    first = folder.loader.resolve("core")
    folder.write("two.yaml", topology("two", sources="core"))
    folder.wait()

    assert folder.loader.resolve("core") is first
    assert folder.loader.names() == ("auto", "one")
    assert folder.loader.problems()[0].file == "two.yaml"

    folder.write("one.yaml", topology("one", version="1.1", sources="unpaywall"))  # makes room
    folder.wait()
    assert folder.loader.resolve("core").name == "two"
    assert folder.loader.problems() == ()


def test_two_topologies_may_exchange_their_sources_at_once(folder: Folder) -> None:
    folder.write("one.yaml", topology("one", sources="core"))
    folder.write("two.yaml", topology("two", sources="unpaywall"))
    assert folder.loader.resolve("core").name == "one"
    folder.write("one.yaml", topology("one", version="1.1", sources="unpaywall"))
    folder.write("two.yaml", topology("two", version="1.1", sources="core"))
    folder.wait()

    assert folder.loader.resolve("core").name == "two"
    assert folder.loader.problems() == ()


# -- the folder -------------------------------------------------------------------------------------------------------


def test_a_missing_folder_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="MEDKG_TOPOLOGIES_DIR"):
        TopologyLoader(tmp_path / "none").names()


def test_a_folder_that_vanishes_leaves_everything_in_force(folder: Folder, tmp_path: Path) -> None:
    first = folder.loader.get("auto")
    away = tmp_path.with_name(tmp_path.name + "-away")
    tmp_path.rename(away)
    folder.wait()
    assert folder.loader.get("auto") is first
    assert folder.loader.problems()[0].in_force == "what was read before"

    away.rename(tmp_path)
    folder.wait()
    assert folder.loader.get("auto") is first
    assert folder.loader.problems() == ()


def test_threads_see_one_consistent_reading(folder: Folder) -> None:
    loader = TopologyLoader(folder.path, check_seconds=0)
    seen: list[str] = []
    faults: list[BaseException] = []

    def read() -> None:
        try:
            for _ in range(100):
                found = loader.get("auto")
                seen.append(f"{found.version} {found.stages[0].name}")
        except BaseException as error:  # noqa: BLE001 - handed to the test
            faults.append(error)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for version in range(20):
        folder.write("auto.yaml", topology(version=f"2.{version}", stage="s" * (version + 1)))
    for thread in threads:
        thread.join(timeout=30)

    assert not faults
    allowed = {"1.0 ingest"} | {f"2.{version} {'s' * (version + 1)}" for version in range(20)}
    assert set(seen) <= allowed


def test_the_default_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("MEDKG_TOPOLOGIES_DIR", raising=False)
    monkeypatch.chdir(tmp_path)
    assert (default_topologies_dir() / "auto.yaml").is_file()  # the checkout's

    (tmp_path / "topologies").mkdir()
    (tmp_path / "topologies" / "resilience.yaml").write_text(POLICIES, encoding="utf-8")
    assert default_topologies_dir() == tmp_path / "topologies"

    other = tmp_path / "other"
    monkeypatch.setenv("MEDKG_TOPOLOGIES_DIR", str(other))
    with pytest.raises(ConfigurationError, match="is not a folder"):
        default_topologies_dir()
    other.mkdir()
    assert default_topologies_dir() == other
