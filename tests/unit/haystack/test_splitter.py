"""The splitter as a Haystack component."""

import os

from haystack import Document, Pipeline

from medkg.haystack.splitter import PassageSplitter


def test_it_runs_in_a_haystack_pipeline_and_survives_serialisation() -> None:
    pipeline = Pipeline()
    pipeline.add_component("split", PassageSplitter(max_tokens=10, overlap_sentences=0))
    again = Pipeline.loads(pipeline.dumps(), allowed_modules=["medkg.haystack.splitter"])
    text = "The first sentence has several words. The second one has several words too. And so has the third one here."
    given = [Document(content=text, meta={"title": "T"})]
    for candidate in (pipeline, again):
        passages = candidate.run({"split": {"documents": given}})["split"]["documents"]
        assert [p.content for p in passages] == [f"{part.strip()}." for part in text.split(".")[:3]]
        assert [p.meta["split_id"] for p in passages] == [0, 1, 2]
        assert {p.meta["title"] for p in passages} == {"T"}


def test_haystack_telemetry_is_off() -> None:
    from haystack.telemetry import _telemetry

    assert os.environ["HAYSTACK_TELEMETRY_ENABLED"] == "False"
    assert _telemetry.telemetry is None
