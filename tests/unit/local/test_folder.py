"""The data folder of a local fleet: one at a time, and a kill -9 is no lock."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from medkg.contracts.errors import ConfigurationError
from medkg.local.folder import claimed, is_claimed, read_note, remove_note, write_note

HOLD = """
import sys
from pathlib import Path
from medkg.local.folder import claimed, write_note
folder = Path(sys.argv[1])
with claimed(folder):
    write_note(folder, gateway_url="http://127.0.0.1:8750", broker="127.0.0.1:9", services=["chunk"])
    print("claimed", flush=True)
    sys.stdin.read()
"""


def start_holder(folder: Path) -> subprocess.Popen[str]:
    """Another process that has claimed the folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "claimed\n"
    return process


def end(process: subprocess.Popen[str], number: int) -> None:
    process.send_signal(number)
    process.communicate(timeout=20)


def test_a_second_fleet_is_refused_and_told_where_the_first_one_is(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "data"
    process = start_holder(folder)
    try:
        with (
            pytest.raises(ConfigurationError, match=rf"pid {process.pid}, gateway http://127.0.0.1:8750\)"),
            claimed(folder),
        ):
            pytest.fail("claimed twice")
        note = read_note(folder)
        assert (note["pid"], note["services"]) == (process.pid, ["chunk"])  # the refusal took nothing away
    finally:
        end(process, signal.SIGTERM)


def test_the_folder_of_a_killed_fleet_is_taken_over_and_its_note_is_gone(tmp_path: Path) -> None:
    process = start_holder(tmp_path)
    end(process, signal.SIGKILL)
    assert read_note(tmp_path)["pid"] == process.pid
    with claimed(tmp_path):
        assert read_note(tmp_path) == {}  # nobody is sent to a fleet that is dead


def test_a_folder_can_be_claimed_again_once_it_is_let_go(tmp_path: Path) -> None:
    for _ in range(2):
        with claimed(tmp_path):
            pass


def test_a_fleet_that_has_not_said_where_it_is_yet_is_refused_all_the_same(tmp_path: Path) -> None:
    with (
        claimed(tmp_path),
        pytest.raises(ConfigurationError, match="is running there; stop it first"),
        claimed(tmp_path),
    ):
        pytest.fail("claimed twice")


def test_whether_a_fleet_runs_can_be_asked_without_claiming_or_making_anything(tmp_path: Path) -> None:
    assert not is_claimed(tmp_path / "nowhere")
    assert list(tmp_path.iterdir()) == []
    with claimed(tmp_path):
        assert is_claimed(tmp_path)
    assert not is_claimed(tmp_path)
    with claimed(tmp_path):
        pass  # nobody was kept out by the question


def test_a_folder_that_cannot_be_is_refused_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="with --data"), claimed(tmp_path / "file"):
        pytest.fail("claimed")


def test_a_note_is_whole_or_not_there(tmp_path: Path) -> None:
    assert read_note(tmp_path) == {}
    write_note(tmp_path, gateway_url="http://x", broker="y", services=[])
    assert read_note(tmp_path) == {
        "pid": os.getpid(),
        "gateway_url": "http://x",
        "broker": "y",
        "services": [],
        "database_url": "",
        "blobs_url": "",
        "is_in_process": False,
    }
    assert [path.name for path in tmp_path.iterdir()] == ["fleet.json"]
    remove_note(tmp_path)
    remove_note(tmp_path)
    assert read_note(tmp_path) == {}


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"pid": 1}', "\x00"])
def test_a_note_that_nobody_can_read_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "fleet.json").write_text(text)
    assert read_note(tmp_path) == {}


def test_a_note_is_json_for_people(tmp_path: Path) -> None:
    write_note(tmp_path, gateway_url="", broker="", services=["chunk"])
    assert json.loads((tmp_path / "fleet.json").read_text())["services"] == ["chunk"]
    assert "\n" in (tmp_path / "fleet.json").read_text()
