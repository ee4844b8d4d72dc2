"""What an index in OpenSearch looks like: fields, analysis of biomedical text, and the template that says so."""

from typing import Any, Final

SCHEMA_VERSION: Final = 1
# for passages, whose lengths differ less than those of documents: with 1.2 and 0.75 nDCG@10 on SciFact is 0.005 lower
BM25_K1: Final = 0.9
BM25_B: Final = 0.6
ANALYZER: Final = "biomedical"

Json = dict[str, Any]

# Greek letters are written out in one paper and not in the next
_GREEK = {
    "\u03b1": "alpha", "\u03b2": "beta", "\u03b3": "gamma", "\u03b4": "delta", "\u03b5": "epsilon", "\u03b6": "zeta",
    "\u03b7": "eta", "\u03b8": "theta", "\u03ba": "kappa", "\u03bb": "lambda", "\u03bc": "mu", "\u00b5": "mu",
    "\u03be": "xi", "\u03c0": "pi", "\u03c1": "rho", "\u03c3": "sigma", "\u03c4": "tau", "\u03c6": "phi",
    "\u03c7": "chi", "\u03c8": "psi", "\u03c9": "omega", "\u0394": "delta", "\u03a9": "omega",
}  # fmt: skip


def analysis() -> Json:
    """Words as they are looked for: ``IL-6`` is found by ``IL-6``, ``IL 6`` and ``IL6``, ``p53`` stays whole.

    Letter case, accents and English endings do not count. Numbers and letters of one name are not torn apart.
    """
    return {
        "char_filter": {"greek": {"type": "mapping", "mappings": [f"{a} => {b}" for a, b in _GREEK.items()]}},
        "filter": {
            "compounds": {
                "type": "word_delimiter_graph",
                "split_on_case_change": False,
                "split_on_numerics": False,
                "catenate_all": True,
                "stem_english_possessive": True,
            },
            "english_stop": {"type": "stop", "stopwords": "_english_"},
            "english_stem": {"type": "stemmer", "language": "english"},
        },
        "analyzer": {
            ANALYZER: {
                "type": "custom",
                "char_filter": ["greek"],
                "tokenizer": "whitespace",
                "filter": [
                    "compounds",
                    "flatten_graph",
                    "lowercase",
                    "asciifolding",
                    "english_stop",
                    "english_stem",
                    "remove_duplicates",
                ],
            }
        },
    }


def mappings() -> Json:
    """A document of the index is a passage, the head of a source document, or the facts of the index."""
    keyword = {"type": "keyword", "ignore_above": 8_000}
    words = {"type": "text", "analyzer": ANALYZER, "similarity": "bm25", "term_vector": "no"}
    return {
        "dynamic": "strict",
        "_meta": {"medkg_schema": SCHEMA_VERSION},
        "properties": {
            "kind": keyword,
            "doc_id": keyword,
            "write_id": keyword,
            "generation": keyword,
            # of passages
            "row": {"type": "integer"},
            "ordinal": {"type": "integer"},
            "written_at": {"type": "long"},
            "title": words | {"copy_to": "words"},
            "section": words,
            "text": words | {"copy_to": "words"},
            # title and text as one: a word that is in both counts by how often, and not twice as rare
            "words": words,
            "chunk": {"type": "binary"},
            "sparse": {"type": "rank_features"},
            "headings": keyword,
            "source": keyword,
            "year": {"type": "integer"},
            "conditions": keyword,
            "phases": keyword,
            "retracted": {"type": "boolean"},
            # of heads
            "revision": {"type": "long"},
            "job": {"type": "keyword", "index": False, "doc_values": False},
            "passages": {"type": "integer"},
            # of facts
            "model": {"type": "keyword", "index": False, "doc_values": False},
            "sparse_model": {"type": "keyword", "index": False, "doc_values": False},
            "dimension": {"type": "integer", "index": False, "doc_values": False},
        },
    }


def settings(*, shards: int, replicas: int, knn: bool, refresh_seconds: float) -> Json:
    """Settings of an index. An explicit refresh interval: shards that nobody searches are refreshed, too."""
    given: Json = {
        "number_of_shards": shards,
        "number_of_replicas": replicas,
        "refresh_interval": f"{round(refresh_seconds * 1000)}ms",
        "similarity": {"bm25": {"type": "BM25", "k1": BM25_K1, "b": BM25_B}},
        "analysis": analysis(),
    }
    return given | {"knn": True} if knn else given


def template(pattern: str, index_settings: Json) -> Json:
    """The index template: whoever makes an index of ours, by hand too, makes it right."""
    return {
        "index_patterns": [pattern],
        "priority": 300,
        "template": {"settings": {"index": index_settings}, "mappings": mappings()},
        "_meta": {"description": "passages of medkg", "medkg_schema": SCHEMA_VERSION},
    }


def vector_field(dimension: int) -> Json:
    """The k-NN field of vectors of one dimension. Lucene's engine filters while it searches, and needs no library."""
    return {
        "properties": {
            "vector": {
                "type": "knn_vector",
                "dimension": dimension,
                "method": {
                    "name": "hnsw",
                    "engine": "lucene",
                    "space_type": "innerproduct",
                    "parameters": {"m": 16, "ef_construction": 128},
                },
            }
        }
    }
