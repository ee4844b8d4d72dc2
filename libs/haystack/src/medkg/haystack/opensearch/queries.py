"""Questions to OpenSearch as JSON. Pure; whatever people type is a value in them, and never syntax."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from medkg.haystack.filtering import checked
from medkg.haystack.lexical import telling_words
from medkg.haystack.opensearch.layout import HEAD, PASSAGE, head_id
from medkg.haystack.sparse import MAX_SPARSE_TERMS
from medkg.haystack.stores import FieldWeights, Filters

Query = dict[str, Any]

_LARGEST_YEAR: Final = 1_000_000
_MAX_WEIGHT: Final = 1e6
_ALONE: Final = 0.2  # of what title or text weighs more than the other; chosen on training queries: docs/decisions/0023
_EMPTY: Query = {"match_none": {}}


def lexical(query: str, filters: Filters, weights: FieldWeights) -> Query:
    """BM25 of title and text as one field, as far as they weigh the same; what one weighs more is added for it alone,
    and counts a fifth.

    Added up field by field (as ``multi_match`` does) a word of the title would count as if it were rare.
    """
    words = " ".join(telling_words(query))
    both = max(0.0, min(weights.title, weights.text))
    alone = _ALONE if both else 1.0
    fields = (
        ("words", both),
        ("title", alone * (weights.title - both)),
        ("text", alone * (weights.text - both)),
        ("section", weights.section),
    )
    legs = [
        {"match": {name: {"query": words, "boost": weight, "auto_generate_synonyms_phrase_query": False}}}
        for name, weight in fields
        if weight > 0
    ]
    return _filtered({"should": legs, "minimum_should_match": 1}, filters) if words and legs else _EMPTY


def sparse(weights: Mapping[str, float], filters: Filters) -> Query:
    """The dot product with the passages' term weights: linear rank features, added up."""
    heaviest = sorted(
        ((weight, term) for term, weight in weights.items() if term and 0 < weight <= _MAX_WEIGHT),
        key=lambda pair: (-pair[0], pair[1]),
    )[:MAX_SPARSE_TERMS]
    if not heaviest:
        return _EMPTY
    legs = [_feature(term) for _, term in heaviest]
    for leg, (weight, _) in zip(legs, heaviest, strict=True):
        leg["rank_feature"]["boost"] = weight
    return _filtered({"should": legs, "minimum_should_match": 1}, filters)


def dense(vector: Sequence[float], k: int, filters: Filters) -> Query:
    """The nearest by inner product; Lucene filters while it walks the graph."""
    what: Query = {"vector": list(vector), "k": k, "filter": {"bool": {"filter": _conditions(filters)}}}
    return {"knn": {"vector": what}}


def term_counts(terms: Sequence[str]) -> dict[str, Query]:
    """Aggregations: the passages that the heads name, and for each term those in which it has a weight."""
    named = {"filter": live_heads(), "aggs": {"passages": {"sum": {"field": "passages"}}}}
    return {"heads": named} | {f"t{number}": {"filter": _feature(term)} for number, term in enumerate(terms)}


def heads(doc_ids: Sequence[str]) -> Query:
    return {"bool": {"filter": [{"ids": {"values": [head_id(doc_id) for doc_id in doc_ids]}}]}}


def all_of(kind: str) -> Query:
    return {"bool": {"filter": [{"term": {"kind": kind}}]}}


def rows_between(doc_id: str, write_id: str, first: int, last: int) -> Query:
    conditions = [
        {"term": {"kind": PASSAGE}},
        {"term": {"doc_id": doc_id}},
        {"term": {"write_id": write_id}},
        {"range": {"ordinal": {"gte": first, "lte": last}}},
    ]
    return {"bool": {"filter": conditions}}


def live_heads() -> Query:
    return {"bool": {"filter": [{"term": {"kind": HEAD}}, {"range": {"passages": {"gt": 0}}}]}}


def _feature(term: str) -> Query:
    return {"rank_feature": {"field": f"sparse.{term}", "linear": {}}}


def _filtered(clauses: Query, filters: Filters) -> Query:
    conditions = _conditions(filters)
    return {"bool": clauses | {"filter": conditions}}


def _conditions(filters: Filters) -> list[Query]:
    wanted = checked(filters)
    conditions: list[Query] = [{"term": {"kind": PASSAGE}}]
    terms = (
        ("source", wanted.sources),
        ("headings", wanted.sections),
        ("conditions", wanted.conditions),
        ("phases", wanted.phases),
    )
    conditions += [{"terms": {name: list(values)}} for name, values in terms if values]
    years = {"gte": wanted.year_from, "lte": wanted.year_to}
    bounds = {edge: max(-_LARGEST_YEAR, min(y, _LARGEST_YEAR)) for edge, y in years.items() if y is not None}
    if bounds:
        conditions.append({"range": {"year": bounds}})
    if wanted.retracted is not None:
        conditions.append({"term": {"retracted": wanted.retracted}})
    return conditions
