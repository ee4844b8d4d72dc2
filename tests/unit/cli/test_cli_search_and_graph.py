"""`medkg search` and `medkg graph`: what is found, where it stands, and that nothing in it can steer the terminal."""

import json
from collections.abc import Callable
from typing import Any

import pytest
import respx
from typer.testing import Result

Medkg = Callable[..., Result]


def hit(rank: int = 1, **changes: Any) -> dict[str, Any]:
    return {
        "rank": rank,
        "score": 0.0325,
        "chunk_id": f"c{rank}",
        "doc_id": "d1",
        "title": "Physiotherapy for Sciatica",
        "source": "clinicaltrials",
        "source_id": "NCT99000104",
        "section_path": ["Eligibility", "Inclusion"],
        "text": "Sciatica for at least six weeks.",
        "provenance": {"record": "NCT99000104", "path": "/x", "page": None, "box": None},
        "legs": {"bm25": 1, "dense": None},
    } | changes


def found(*hits: dict[str, Any], legs_missing: tuple[str, ...] = ()) -> dict[str, Any]:
    return {"query": "q", "hits": list(hits), "legs_missing": list(legs_missing), "took_ms": 12.3}


def test_a_hit_shows_rank_title_score_document_section_and_passage(medkg: Medkg, gateway: respx.MockRouter) -> None:
    route = gateway.get("/v1/search").respond(json=found(hit(), hit(2, title="")))
    result = medkg("search", "sciatica", "--tenant", "lab", "--limit", "3")
    assert result.exit_code == 0
    first, place, passage = result.stdout.splitlines()[:3]
    assert first.split() == ["1", "Physiotherapy", "for", "Sciatica", "0.0325"]
    assert place.strip() == "NCT99000104 · clinicaltrials · Eligibility > Inclusion · bm25 1"
    assert passage.strip() == "Sciatica for at least six weeks."
    assert "untitled" in result.stdout
    assert "2 passages in 12 ms" in result.stdout
    assert dict(route.calls.last.request.url.params) == {"q": "sciatica", "tenant_id": "lab", "limit": "3"}


def test_filters_and_wishes_go_to_the_gateway_as_they_were_said(medkg: Medkg, gateway: respx.MockRouter) -> None:
    route = gateway.get("/v1/search").respond(json=found(hit()))
    result = medkg(
        *("search", "x", "--source", "files", "--source", "pmc", "--phase", "phase 3", "--year-from", "2010"),
        *("--no-retracted", "--leg", "bm25", "--by-document", "--neighbours", "1", "--explain", "--offset", "20"),
    )
    assert result.exit_code == 0
    params = route.calls.last.request.url.params
    assert params.get_list("source") == ["files", "pmc"]
    assert {name: params[name] for name in params if name not in ("source", "q", "tenant_id", "limit")} == {
        "phase": "phase 3",
        "year_from": "2010",
        "retracted": "false",
        "leg": "bm25",
        "by_document": "true",
        "neighbours": "1",
        "explain": "true",
        "offset": "20",
    }


def test_an_explanation_says_what_each_leg_gave_and_neighbours_stand_around_the_hit(
    medkg: Medkg, gateway: respx.MockRouter
) -> None:
    shares = [{"leg": "bm25", "rank": 1, "score": 12.5, "weight": 1.0, "share": 0.1667}]
    beside = [{"ordinal": 0, "text": "What stood before."}, {"ordinal": 2, "text": "What came after."}]
    explained = hit(explanation=shares, neighbours=beside, ordinal=1, also=2, rerank_score=0.75)
    gateway.get("/v1/search").respond(json=found(explained) | {"more": True})
    said = " ".join(medkg("search", "sciatica", "--explain").stdout.split())
    assert "bm25 rank 1 score 12.5000 weight 1 gave 0.1667" in said
    assert "rerank score 0.7500" in said
    assert "and 2 passages more" in said
    assert said.index("What stood before.") < said.index("for at least six weeks") < said.index("What came after.")
    assert "more with --offset 1" in said


def test_words_of_the_query_are_marked_in_the_passage(medkg: Medkg, gateway: respx.MockRouter) -> None:
    gateway.get("/v1/search").respond(json=found(hit(text="Two trials of a trial; nothing retrial.")))
    result = medkg("search", "which trials", env={"FORCE_COLOR": "1"}, color=True)
    assert "\x1b[1;33mtrials\x1b[0m of a \x1b[1;33mtrial\x1b[0m; nothing retrial." in result.stdout


def test_no_color_prints_no_colour(medkg: Medkg, gateway: respx.MockRouter) -> None:
    gateway.get("/v1/search").respond(json=found(hit()))
    for arguments, env in ((("--no-color",), {"FORCE_COLOR": "1"}), ((), {"FORCE_COLOR": "1", "NO_COLOR": "1"})):
        result = medkg("search", "sciatica", *arguments, env=env, color=True)
        assert "\x1b[3" not in result.stdout
        assert ";3" not in result.stdout


def test_long_passages_show_the_stretch_that_matches_and_full_shows_all(
    medkg: Medkg, gateway: respx.MockRouter
) -> None:
    text = "Nothing of interest here. " * 60 + "The needle is here. " + "More of nothing. " * 60
    gateway.get("/v1/search").respond(json=found(hit(text=text)))
    short, full = medkg("search", "needle").stdout, medkg("search", "needle", "--full").stdout
    assert "needle" in short
    assert "…" in short
    assert len(short) < len(text) / 3
    assert len(full) > len(text)


def test_markup_and_control_characters_of_a_passage_are_harmless(medkg: Medkg, gateway: respx.MockRouter) -> None:
    hostile = "[bold]kept[/bold] [link=http://x]y[/link] \x1b[31mred\x1b]0;title\x07 bell\x07 \u202eback \x9b2J :smile:"
    gateway.get("/v1/search").respond(
        json=found(hit(text=hostile, title="[red]T\x1b[2J", source_id="\x1b[8mX", section_path=["[/]"]))
    )
    result = medkg("search", "x", env={"FORCE_COLOR": "1"}, color=True)
    assert result.exit_code == 0
    assert "[bold]kept[/bold] [link=http://x]y[/link] red bell back :smile:" in result.stdout.replace("\x1b[0m", "")
    assert "[red]T" in result.stdout
    for steering in ("\x1b[31m", "\x1b[2J", "\x1b[8m", "\x1b]", "\x07", "\u202e", "\x9b"):
        assert steering not in result.stdout


def test_a_missing_index_is_said(medkg: Medkg, gateway: respx.MockRouter) -> None:
    gateway.get("/v1/search").respond(json=found(hit(), legs_missing=("dense",)))
    assert "the ranking is without dense: it did not answer" in medkg("search", "x").stderr
    why = {"missing": {"dense": "no embedder for qwen3"}}
    gateway.get("/v1/search").respond(json=found(hit(), legs_missing=("dense",)) | why)
    assert "the ranking is without dense: no embedder for qwen3" in medkg("search", "x").stderr


def test_no_hit_is_no_failure(medkg: Medkg, gateway: respx.MockRouter) -> None:
    gateway.get("/v1/search").respond(json=found())
    result = medkg("search", "[nothing]")
    assert result.exit_code == 0
    assert "no passage of tenant default answers '[nothing]'" in result.stdout


@pytest.mark.parametrize("limit", ["0", "101"])
def test_a_limit_the_gateway_would_refuse_is_wrong_usage(medkg: Medkg, limit: str) -> None:
    assert medkg("search", "x", "--limit", limit).exit_code == 2


def test_search_json_is_one_line_that_cannot_steer_a_terminal(medkg: Medkg, gateway: respx.MockRouter) -> None:
    answer = found(hit(text="a\x1b[31m\x9b\u202eb\nc", newer=1))
    gateway.get("/v1/search").respond(json=answer)
    result = medkg("search", "x", "--json")
    assert json.loads(result.stdout) == answer
    assert len(result.stdout.splitlines()) == 1
    assert not set("\x1b\x9b\u202e") & set(result.stdout)


ENTITY = {
    "entity_id": "mesh:D012585",
    "type": "condition",
    "name": "Sciatica",
    "aliases": ["Ischialgia", "Sciatic [Neuralgia]"],
    "identifiers": {"mesh": "D012585"},
    "documents": 1,
}
EVIDENCE = {
    "doc_id": "d1",
    "title": "Physiotherapy",
    "source": "files",
    "source_id": "PMC1",
    "section_path": ["Results"],
    "text": "Surgery relieved sciatica quickly.",
    "mention": {"text": "relieved sciatica", "span": {"block_id": "b", "start": 8, "end": 25}},
    "provenance": {},
}


def claim(claim_id: str, subject: str, predicate: str, target: str | None = None, **changes: Any) -> dict[str, Any]:
    def end(entity_id: str) -> dict[str, str]:
        return {"entity_id": entity_id, "type": "thing", "name": entity_id.partition(":")[2]}

    return {
        "claim_id": claim_id,
        "subject": end(subject),
        "predicate": predicate,
        "object": end(target) if target else None,
        "value": None,
        "qualifiers": {},
        "confidence": 1.0,
        "method": "registry",
        "evidence": [EVIDENCE],
    } | changes


def test_an_entity_is_a_card_with_its_claims_by_predicate_and_their_passages(
    medkg: Medkg, gateway: respx.MockRouter
) -> None:
    claims = [
        claim("1", "mesh:D012585", "treated_by", "x:Surgery", qualifiers={"phase": "3"}, confidence=0.8),
        claim("2", "nct:TrialA", "studies", "mesh:D012585"),
        claim("3", "mesh:D012585", "treated_by", None, value="[rest]"),
    ]
    gateway.get("/v1/graph").respond(json={"query": "s", "entities": [ENTITY], "claims": claims})
    result = medkg("graph", "Sciatica")
    assert result.exit_code == 0
    lines = [line.strip() for line in result.stdout.splitlines()]
    assert lines[0] == "Sciatica  condition"
    assert "also   Ischialgia, Sciatic [Neuralgia]" in lines
    assert "in     1 document" in lines
    assert lines.count("treated by") == 1
    assert "Surgery  thing x:Surgery  phase 3 · confidence 0.80 · registry" in lines
    assert "[rest]  registry" in lines
    assert "← TrialA  thing nct:TrialA  registry" in lines
    assert "“Surgery relieved sciatica quickly.”" in lines
    assert "PMC1 · files · Results · Physiotherapy" in lines
    assert lines[-1] == "3 statements"


def test_the_words_a_claim_was_read_from_are_marked_however_long_the_passage(
    medkg: Medkg, gateway: respx.MockRouter
) -> None:
    text = "Before this nothing. " * 50 + "Surgery relieved sciatica quickly." + " After this nothing." * 50
    claims = [
        claim("1", "mesh:D012585", "p", None, value="v", evidence=[EVIDENCE | {"text": text}, EVIDENCE, EVIDENCE])
    ]
    gateway.get("/v1/graph").respond(json={"query": "s", "entities": [ENTITY], "claims": claims})
    result = medkg("graph", "Sciatica", env={"FORCE_COLOR": "1", "COLUMNS": "400"}, color=True)
    assert "\x1b[1;33mrelieved sciatica\x1b[0m" in result.stdout
    assert "more" not in result.stdout  # the same passage twice is one


def test_many_entities_of_a_name_are_listed_briefly(medkg: Medkg, gateway: respx.MockRouter) -> None:
    entities = [ENTITY | {"entity_id": f"x:{number}", "name": f"Name {number}"} for number in range(20)]
    gateway.get("/v1/graph").respond(json={"query": "n", "entities": entities, "claims": []})
    lines = medkg("graph", "name").stdout.splitlines()
    assert sum(line.startswith("  id ") for line in lines) == 3
    assert "also Name 3  condition x:3  in 1 document" in lines
    assert "and 7 entities more" in lines


def test_an_unknown_entity_is_not_found(medkg: Medkg, gateway: respx.MockRouter) -> None:
    gateway.get("/v1/graph").respond(json={"query": "x", "entities": [], "claims": []})
    result = medkg("graph", "[x]")
    assert result.exit_code == 4
    assert "knows no '[x]'" in result.stderr


def test_graph_json_is_what_the_gateway_said(medkg: Medkg, gateway: respx.MockRouter) -> None:
    answer = {"query": "s", "entities": [ENTITY], "claims": [claim("1", "a:b", "p", "c:d")]}
    gateway.get("/v1/graph").respond(json=answer)
    assert json.loads(medkg("graph", "s", "--json", "--limit", "9").stdout) == answer
