import xml.etree.ElementTree as ET

from tests.unit.benchmarks.benchmark_results import results

from medkg.benchmarks.plot import picture
from medkg.benchmarks.report import report
from medkg.benchmarks.targets import TARGETS, target_lines

SVG = "{http://www.w3.org/2000/svg}"


def test_the_table_names_every_system_and_every_load() -> None:
    text = report(results())
    for name in ("medkg", "bare", "faststream-batch", "30 %", "80 %", "idle", "medkg, 8 hops"):
        assert name in text


def test_the_table_can_be_written_of_a_run_of_one_part() -> None:
    measured = results()
    for name in ("systems", "overhead"):
        del measured[name]
    assert "replicas" in report(measured)


def test_a_rate_from_fewer_documents_is_marked() -> None:
    measured = results()
    assert "fewer documents" not in report(measured)
    measured["systems"]["bare"]["is_extrapolated"] = True
    assert "4000.0*" in report(measured)


def test_every_target_is_held_broken_or_not_measured() -> None:
    verdicts = {line.split("  ")[0].strip(): line.rsplit("  ", 1)[-1].strip() for line in target_lines(results())[1:]}
    assert len(verdicts) == len(TARGETS)
    assert verdicts["documents/s over the bare loop"] == "yes"
    assert verdicts["documents/s over FastStream batch"] == "yes"
    assert verdicts["two replicas over one"] == "yes"
    assert verdicts["documents/s over Dagster"] == "not measured"
    measured = results()
    measured["replicas"]["ratio"] = 1.2
    assert any("two replicas" in line and line.endswith("NO") for line in target_lines(measured))


def test_the_picture_is_svg_with_a_bar_a_system_and_dots_a_load() -> None:
    root = ET.fromstring(picture(results()))
    assert len(root.findall(f"{SVG}rect")) == 1 + 3  # the paper, and the bars
    assert len(root.findall(f"{SVG}circle")) == 3 * 2 * 3
    texts = [text.text for text in root.iter(f"{SVG}text")]
    assert {"medkg", "bare", "faststream-batch"} <= set(texts)


def test_bars_grow_with_the_rate() -> None:
    root = ET.fromstring(picture(results()))
    ours, bare, batch = (float(bar.attrib["width"]) for bar in root.findall(f"{SVG}rect")[1:])
    assert bare > ours > batch > 0


def test_names_in_a_picture_are_escaped() -> None:
    measured = results()
    measured["systems"]["<script>"] = measured["systems"].pop("bare")
    assert "<script>" not in picture(measured)
