"""How each table of the ledger is merged: one declaration a table, its columns in the order of a row."""

from medkg.storage.ledger_merge import Field, MergedTable, Rule, Tuple


def _constant(*names: str) -> list[Field]:
    return [Field(name, "text", Rule.GREATEST) for name in names]


_DOCUMENT = (
    Field("job_id", "text", Rule.KEY),
    Field("doc_id", "text", Rule.KEY),
    *_constant("tenant_id", "pipeline_name", "pipeline_version"),
    Field("is_known", "boolean", Rule.EITHER),
)
# What is said of a document once: by its page, or when it is sent on its way again.
DOCUMENT_ORIGINS = MergedTable(
    "documents",
    [
        *_DOCUMENT,
        Tuple((("page_number", "bigint"), ("source_id", "text"), ("uri", "text"))),
        Tuple((("last_event_at", "timestamptz"), ("stage_rank", "smallint"), ("current_stage", "text")), latest=True),
        Field("first_event_at", "timestamptz", Rule.LEAST),
    ],
)
# What every stage says of it, mostly the same as the one before.
DOCUMENTS = MergedTable(
    "documents",
    [
        *_DOCUMENT,
        Field("retry_count_per_stage", "text", Rule.HIGHEST_BY_KEY),
        Field("pdf_downloaded", "boolean", Rule.EITHER),
        Field("post_pdf_started", "boolean", Rule.EITHER),
        Field("did_work", "boolean", Rule.EITHER),
        Field("finished_leaves", "text", Rule.UNION),
        Field("leaves", "bigint", Rule.GREATEST),
    ],
)
# What befalls few documents, merged into the same table by a statement of its own.
DOCUMENT_FAILURES = MergedTable(
    "documents",
    [
        Field("job_id", "text", Rule.KEY),
        Field("doc_id", "text", Rule.KEY),
        *_constant("tenant_id"),
        Field("is_known", "boolean", Rule.EITHER),
        Tuple(
            (
                ("failure_order", "bigint"),
                ("failure_at", "timestamptz"),
                ("failure_stage", "text"),
                ("failure_code", "text"),
                ("failure_message", "text"),
                ("failure_disposition", "text"),
            )
        ),
        Field("failures", "text", Rule.UNION),
        Field("redriven", "text", Rule.UNION),
    ],
)
STAGE_RUNS = MergedTable(
    "stage_runs",
    [
        Field("job_id", "text", Rule.KEY),
        Field("doc_id", "text", Rule.KEY),
        Field("page", "bigint", Rule.KEY),
        Field("stage", "text", Rule.KEY),
        Field("attempt", "bigint", Rule.KEY),
        Field("redrive", "bigint", Rule.KEY),
        *_constant("stage_type"),
        Tuple((("started_at", "timestamptz"), ("started_by", "text"))),
        Tuple(
            (
                ("outcome", "smallint"),
                ("finished_at", "timestamptz"),
                ("worker", "text"),
                ("duration_us", "bigint"),
                ("failure_code", "text"),
                ("failure_message", "text"),
            )
        ),
        Field("did_work", "boolean", Rule.EITHER),
    ],
)
PAGES = MergedTable(
    "pages",
    [
        Field("job_id", "text", Rule.KEY),
        Field("number", "bigint", Rule.KEY),
        Field("is_done", "boolean", Rule.EITHER),
        Field("is_last", "boolean", Rule.EITHER),
        Field("documents", "bigint", Rule.GREATEST),
        Field("refused", "bigint", Rule.GREATEST),
        Field("total", "bigint", Rule.GREATEST),
        Field("done_at", "timestamptz", Rule.LEAST),
        Tuple(
            (
                ("failure_order", "bigint"),
                ("failure_at", "timestamptz"),
                ("failure_code", "text"),
                ("failure_message", "text"),
            )
        ),
        Field("failures", "text", Rule.UNION),
        Field("redriven", "text", Rule.UNION),
    ],
)
JOBS = MergedTable(
    "jobs",
    [
        Field("job_id", "text", Rule.KEY),
        *_constant("tenant_id", "pipeline_name", "pipeline_version", "pipeline_digest"),
        Field("revision", "bigint", Rule.GREATEST),
        Tuple((("admitted_at", "timestamptz"), ("source", "text"), ("selection", "text"))),
        Tuple((("rejected_at", "timestamptz"), ("faults", "text"))),
        Field("last_page", "bigint", Rule.GREATEST),
        Field("max_page", "bigint", Rule.GREATEST),
        Field("total_records", "bigint", Rule.GREATEST),
        Field("first_event_at", "timestamptz", Rule.LEAST),
        Field("last_event_at", "timestamptz", Rule.GREATEST),
        *(
            Field(name, "bigint", Rule.ADD)
            for name in (
                "documents",
                "completed",
                "skipped",
                "failed",
                "rejected",
                "pages_done",
                "pages_failed",
                "redrives",
            )
        ),
    ],
)
REJECTIONS = MergedTable(
    "rejections",
    [
        Field("rejection_id", "text", Rule.KEY),
        *_constant("job_id", "tenant_id", "faults", "topic"),
        Field("partition", "integer", Rule.GREATEST),
        Field("offset", "bigint", Rule.GREATEST),
        Field("rejected_at", "timestamptz", Rule.LEAST),
    ],
)
TOPOLOGIES = MergedTable("topologies", [Field("digest", "text", Rule.KEY), *_constant("canonical_json")])
JOB_STAGES = MergedTable(
    "job_stages",
    [
        Field("job_id", "text", Rule.KEY),
        Field("stage", "text", Rule.KEY),
        *_constant("stage_type"),
        *(
            Field(name, "bigint", Rule.ADD)
            for name in ("started", "retrying", "completed", "reused", "failed", "duration_us")
        ),
    ],
)
# What a letter and a decision about it both say: the same, because both say it of the same message.
_LETTER = (
    Field("dead_letter_id", "text", Rule.KEY),
    *_constant("job_id", "tenant_id", "doc_id", "stage"),
    Field("redrive", "bigint", Rule.GREATEST),
    *_constant("topic"),
    Field("partition", "integer", Rule.GREATEST),
    Field("offset", "bigint", Rule.GREATEST),
)
DEAD_LETTERS = MergedTable(
    "dead_letters",
    [
        *_LETTER,
        Tuple(
            (
                ("dead_at", "timestamptz"),
                ("letter_partition", "integer"),
                ("letter_offset", "bigint"),
                ("attempt", "bigint"),
                ("code", "text"),
                ("message", "text"),
                ("causes", "text"),
                ("disposition", "text"),
                ("worker", "text"),
                ("worker_version", "text"),
            )
        ),
    ],
)
LETTER_DECISIONS = MergedTable(
    "dead_letters",
    [
        *_LETTER,
        Tuple((("redriven_at", "timestamptz"), ("redriven_by", "text"), ("redriven_reason", "text"))),
        Tuple((("dropped_at", "timestamptz"), ("dropped_by", "text"), ("dropped_reason", "text"))),
    ],
)
