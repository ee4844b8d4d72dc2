"""The statements behind :mod:`medkg.storage.waits`."""

from sqlalchemy import text

from medkg.storage.ledger import CURRENT_STAGE, HEARD_OF

PARK = text("""
INSERT INTO waits (wait_id, kind, tenant_id, job_id, doc_id, stage, page, arrived_from, needed, request, origin,
                   ledger_field, equals, due_at, resume_stage, on_timeout, next_topic, file_sha256, attempt)
SELECT wait_id, kind, tenant_id, job_id, doc_id, stage, page, arrived_from, needed, request, origin,
       ledger_field, CAST(equals AS jsonb),
       -- 30 days: as long as a gate may wait; what asks for more has a wrong clock
       CASE WHEN due_ms > 0 THEN LEAST(to_timestamp(due_ms / 1000.0), now() + interval '30 days')
            ELSE now() + timeout_seconds * interval '1 second' END,
       resume_stage, on_timeout, next_topic, file_sha256, attempt
FROM unnest(CAST(:wait_id AS text[]), CAST(:kind AS text[]), CAST(:tenant_id AS text[]), CAST(:job_id AS text[]),
            CAST(:doc_id AS text[]), CAST(:stage AS text[]), CAST(:page AS bigint[]), CAST(:arrived_from AS text[]),
            CAST(:needed AS int[]), CAST(:request AS text[]), CAST(:origin AS text[]), CAST(:ledger_field AS text[]),
            CAST(:equals AS text[]), CAST(:timeout_seconds AS double precision[]), CAST(:due_ms AS bigint[]),
            CAST(:resume_stage AS text[]), CAST(:on_timeout AS text[]), CAST(:next_topic AS text[]),
            CAST(:file_sha256 AS text[]), CAST(:attempt AS bigint[]))
  AS new (wait_id, kind, tenant_id, job_id, doc_id, stage, page, arrived_from, needed, request, origin,
          ledger_field, equals, timeout_seconds, due_ms, resume_stage, on_timeout, next_topic, file_sha256, attempt)
ORDER BY wait_id
ON CONFLICT (wait_id) DO NOTHING""")

REMOVE = text("DELETE FROM waits WHERE wait_id = ANY (CAST(:ids AS text[]))")

DUE_PAGES = text("""
WITH in_line AS (
  SELECT wait_id, tenant_id, row_number() OVER (PARTITION BY tenant_id ORDER BY arrived_at, wait_id) AS place
  FROM waits WHERE kind = 'page' AND state = 'waiting'
), under_way AS (
  SELECT tenant_id, sum(documents - completed - skipped - failed - rejected) AS documents
  FROM jobs WHERE state IN ('admitted', 'running') AND tenant_id IN (SELECT tenant_id FROM in_line) GROUP BY tenant_id
), parked AS (
  SELECT tenant_id, LEAST(count(*), CAST(:parked AS bigint)) AS documents FROM waits
  WHERE kind = 'gate' AND state = 'waiting' AND tenant_id IN (SELECT tenant_id FROM in_line) GROUP BY tenant_id
), handed_out AS (
  SELECT w.tenant_id, sum(w.needed) AS documents
  FROM waits w LEFT JOIN pages p ON p.job_id = w.job_id AND p.number = w.page
  WHERE w.kind = 'page' AND w.state = 'released' AND p.job_id IS NULL GROUP BY w.tenant_id
)
SELECT w.* FROM waits w JOIN in_line l USING (wait_id)
LEFT JOIN under_way u ON u.tenant_id = w.tenant_id LEFT JOIN handed_out h ON h.tenant_id = w.tenant_id
LEFT JOIN parked k ON k.tenant_id = w.tenant_id
WHERE GREATEST(coalesce(u.documents, 0) - coalesce(k.documents, 0), 0) + coalesce(h.documents, 0)
      + (l.place - 1) * w.needed < :bound
ORDER BY l.place, w.arrived_at, w.wait_id
LIMIT :limit FOR UPDATE OF w SKIP LOCKED""")

# The fields of a document that a gate may wait for, beside the retries of a stage.
GATE_COLUMNS = (
    "pdf_ir_ready",
    "pdf_ir_failed",
    "pdf_downloaded",
    "post_pdf_started",
    "current_stage",
    "pipeline_name",
    "pipeline_version",
)
_PLACE = f"(SELECT {CURRENT_STAGE} FROM (VALUES (1)) AS one {HEARD_OF})"  # noqa: S608  constants
_FIELDS = {name: f"d.{name}" for name in GATE_COLUMNS} | {"current_stage": _PLACE}
_CASES = "\n      ".join(f"WHEN '{name}' THEN to_jsonb({field})" for name, field in _FIELDS.items())
_HOLDS = f"""n.equals = CASE n.ledger_field
      {_CASES}
      ELSE d.retry_count_per_stage -> substr(n.ledger_field, length('retry_count_per_stage.') + 1)
    END"""
_NEVER = "(n.ledger_field = 'pdf_ir_ready' AND n.equals = 'true' AND d.pdf_ir_failed)"
_MAY = "(n.look_again_at IS NULL OR n.look_again_at <= clock_timestamp())"
_OF = "(n.job_id, n.doc_id) IN (SELECT * FROM unnest(CAST(:jobs AS text[]), CAST(:docs AS text[])))"

# Who goes first: tenants take turns within a topic, and no topic gets more than it has room for. What is looked through
# is narrow: only rows that are let in are fetched whole.
_IN_TURN = """
), in_line AS (
  SELECT wait_id, next_topic, verdict,
         row_number() OVER (PARTITION BY next_topic, tenant_id ORDER BY arrived_at, wait_id) AS turn FROM due
), let_in AS (
  SELECT wait_id, verdict, turn, row_number() OVER (PARTITION BY next_topic ORDER BY turn, wait_id) AS place,
         next_topic FROM in_line
)
SELECT w.*, l.verdict FROM waits w JOIN let_in l USING (wait_id)
LEFT JOIN unnest(CAST(:topics AS text[]), CAST(:rooms AS bigint[])) AS r (topic, room) ON r.topic = l.next_topic
WHERE w.state = 'waiting' AND (r.room IS NULL OR l.place <= r.room)
ORDER BY l.turn, w.arrived_at, w.wait_id LIMIT :limit FOR UPDATE OF w SKIP LOCKED"""


def _due_gates(which: str) -> str:
    return f"""
WITH due AS (
  SELECT n.wait_id, n.tenant_id, n.next_topic, n.arrived_at,
         CASE WHEN {_HOLDS} THEN 'passed' ELSE 'unparsed' END AS verdict
  FROM waits n JOIN documents d ON d.job_id = n.job_id AND d.doc_id = n.doc_id
  WHERE n.kind = 'gate' AND n.state = 'waiting' AND {_MAY} AND {which} AND ({_HOLDS} OR {_NEVER})
{_IN_TURN}"""  # noqa: S608  constants


DUE_GATES = text(_due_gates("true"))
DUE_GATES_OF = text(_due_gates(_OF))

EXPIRED_GATES = text(f"""
WITH due AS (
  SELECT n.wait_id, n.tenant_id, CASE WHEN n.on_timeout = 'release' THEN n.next_topic ELSE '' END AS next_topic,
         n.due_at AS arrived_at, 'expired' AS verdict
  FROM waits n WHERE n.kind IN ('gate', 'unread') AND n.state = 'waiting' AND n.due_at <= now() AND {_MAY}
{_IN_TURN}""")  # noqa: S608  constants

DUE_RETRIES = text(f"""
WITH due AS (
  SELECT n.wait_id, n.tenant_id, n.next_topic, n.due_at AS arrived_at, 'due' AS verdict
  FROM waits n WHERE n.kind = 'retry' AND n.state = 'waiting' AND n.due_at <= clock_timestamp() AND {_MAY}
{_IN_TURN}""")  # noqa: S608  constants


def _complete_joins(which: str) -> str:
    return f"""
SELECT w.*, 'passed' AS verdict FROM waits w
WHERE w.kind = 'join' AND w.state = 'waiting' AND (w.job_id, w.doc_id, w.stage) IN (
  SELECT job_id, doc_id, stage FROM waits n WHERE n.kind = 'join' AND n.state = 'waiting' AND {_MAY} AND {which}
  GROUP BY job_id, doc_id, stage HAVING count(DISTINCT arrived_from) >= max(needed)
  ORDER BY max(arrived_at) LIMIT :limit)
ORDER BY w.job_id, w.doc_id, w.stage, w.arrived_from, w.arrived_at FOR UPDATE OF w"""  # noqa: S608  constants


COMPLETE_JOINS = text(_complete_joins("true"))
COMPLETE_JOINS_OF = text(_complete_joins(_OF))

DECIDED = text(f"""
SELECT w.*, o.verdict, a.who AS decided_by, a.why AS decided_why FROM waits w JOIN (
  SELECT DISTINCT ON (other.wait_id) other.wait_id, n.wait_id AS decided, n.decision AS verdict FROM (
    SELECT * FROM waits n WHERE n.state = 'waiting' AND n.decision <> '' AND {_MAY} ORDER BY n.arrived_at LIMIT :limit
  ) n JOIN waits other ON other.job_id = n.job_id AND other.doc_id = n.doc_id AND other.stage = n.stage
    AND other.kind = n.kind AND other.state = 'waiting' AND (n.kind = 'join' OR other.wait_id = n.wait_id)
) o USING (wait_id)
LEFT JOIN LATERAL (
  SELECT who, why FROM operator_actions a WHERE a.wait_id = o.decided AND a.action = o.verdict
  ORDER BY a.at DESC LIMIT 1
) a ON true
WHERE w.state = 'waiting'
ORDER BY w.job_id, w.doc_id, w.stage, w.arrived_from FOR UPDATE OF w""")  # noqa: S608  constants

UNREAD = text(f"""
SELECT n.*, 'unread' AS verdict FROM waits n
WHERE n.kind = 'unread' AND n.state = 'waiting' AND {_MAY}
ORDER BY n.arrived_at LIMIT :limit FOR UPDATE OF n SKIP LOCKED""")  # noqa: S608  constants

END_FAILED_JOINS = text("""
WITH over AS (
  SELECT w.wait_id, d.failure_stage, d.failure_code FROM waits w
  JOIN documents d ON d.job_id = w.job_id AND d.doc_id = w.doc_id
  WHERE w.kind = 'join' AND w.state = 'waiting' AND d.state IN ('failed', 'rejected')
    AND d.failure_at > coalesce(w.revived_at, '-infinity')
  LIMIT :limit FOR UPDATE OF w SKIP LOCKED)
UPDATE waits w SET state = 'released', released_at = clock_timestamp(),
       reason = 'branch failed: ' || over.failure_stage || ': ' || over.failure_code
FROM over WHERE over.wait_id = w.wait_id""")

REVIVE_JOINS = text("""
UPDATE waits n SET state = 'waiting', released_at = NULL, reason = 'redriven', revived_at = clock_timestamp()
WHERE n.kind = 'join' AND (n.reason LIKE 'branch failed%' OR n.state = 'waiting')
  AND (n.job_id, n.doc_id) IN (SELECT * FROM unnest(CAST(:jobs AS text[]), CAST(:docs AS text[])))""")

MARK = text("""
UPDATE waits SET state = 'released', released_at = clock_timestamp(), reason = :reason, decision = '',
       look_again_at = NULL
WHERE wait_id = ANY (CAST(:ids AS text[]))""")

# 5 s, doubled with each look, at most 5 min
LEAVE = text("""
UPDATE waits w SET look_again_at = clock_timestamp() + LEAST(5 * 2 ^ LEAST(w.looks, 10), 300) * interval '1 second',
       looks = w.looks + 1, reason = o.reason
FROM unnest(CAST(:ids AS text[]), CAST(:reasons AS text[])) AS o (wait_id, reason) WHERE o.wait_id = w.wait_id""")

WAITING = text("""
SELECT (SELECT coalesce(array_agg(k.kind), '{}') FROM unnest(ARRAY['page', 'gate', 'join']) AS k (kind)
        WHERE EXISTS (SELECT 1 FROM waits w WHERE w.state = 'waiting' AND w.kind = k.kind)) AS kinds,
       EXISTS (SELECT 1 FROM waits w WHERE w.state = 'waiting' AND w.decision <> '') AS is_decided,
       EXTRACT(EPOCH FROM LEAST(
  (SELECT due_at FROM waits WHERE state = 'waiting' AND due_at IS NOT NULL AND look_again_at IS NULL
   ORDER BY due_at LIMIT 1),
  (SELECT min(look_again_at) FROM waits WHERE state = 'waiting' AND look_again_at IS NOT NULL)) - clock_timestamp())
         AS seconds_until_due""")

NOTE_LATE = text(f"""
UPDATE waits n SET late_at = clock_timestamp() FROM documents d
WHERE d.job_id = n.job_id AND d.doc_id = n.doc_id AND n.kind = 'gate' AND n.state = 'released'
  AND n.reason IN ('timeout', 'unparsed') AND n.late_at IS NULL AND {_OF} AND {_HOLDS}
RETURNING n.job_id, n.doc_id""")  # noqa: S608  constants


def _unasked(which: str) -> str:
    return f"""
WITH files AS (
  SELECT DISTINCT ON (n.tenant_id, n.file_sha256) n.wait_id FROM waits n
  LEFT JOIN documents d ON d.job_id = n.job_id AND d.doc_id = n.doc_id
  WHERE n.kind = 'gate' AND n.state = 'waiting' AND n.file_sha256 <> '' AND {which}
    AND NOT coalesce(d.pdf_ir_ready, false) AND NOT coalesce(d.pdf_ir_failed, false)
    AND NOT EXISTS (
      SELECT 1 FROM waits o WHERE o.tenant_id = n.tenant_id AND o.file_sha256 = n.file_sha256
        AND o.file_sha256 <> '' AND o.state = 'waiting' AND o.asked_at >= {_LONG_AGO})
  ORDER BY n.tenant_id, n.file_sha256, n.arrived_at, n.wait_id LIMIT :limit)
UPDATE waits w SET asked_at = clock_timestamp() FROM files
WHERE w.wait_id = files.wait_id AND coalesce(w.asked_at, '-infinity') < {_LONG_AGO} RETURNING w.*"""  # noqa: S608


_LONG_AGO = "clock_timestamp() - CAST(:older_seconds AS double precision) * interval '1 second'"
UNASKED = text(_unasked("true"))
UNASKED_OF = text(_unasked(_OF))

FORGET = text("""
DELETE FROM waits w USING jobs j
WHERE j.job_id = w.job_id AND j.state IN ('completed', 'completed_with_failures', 'rejected')
  AND NOT ((w.kind = 'gate' AND w.reason IN ('timeout', 'unparsed') OR w.reason LIKE 'branch failed%')
           AND w.released_at > now() - CAST(:keep_seconds AS double precision) * interval '1 second')""")

# Signals that came for documents that no job knew.
CLAIM_SIGNALS = text("""
INSERT INTO documents AS old (job_id, doc_id, tenant_id, pdf_downloaded, pdf_ir_ready, pdf_ir_failed)
SELECT new.job_id, new.doc_id, new.tenant_id, bool_or(k.ledger_field = 'pdf_downloaded'),
       bool_or(k.ledger_field = 'pdf_ir_ready'), bool_or(k.ledger_field = 'pdf_ir_failed')
FROM unnest(CAST(:jobs AS text[]), CAST(:docs AS text[]), CAST(:tenants AS text[])) AS new (job_id, doc_id, tenant_id)
JOIN kept_signals k ON k.tenant_id = new.tenant_id AND k.doc_id = new.doc_id AND k.deadline > now()
GROUP BY new.job_id, new.doc_id, new.tenant_id ORDER BY new.job_id, new.doc_id
ON CONFLICT (job_id, doc_id) DO UPDATE SET pdf_downloaded = old.pdf_downloaded OR excluded.pdf_downloaded,
  pdf_ir_ready = old.pdf_ir_ready OR excluded.pdf_ir_ready, pdf_ir_failed = old.pdf_ir_failed OR excluded.pdf_ir_failed
WHERE old.tenant_id = excluded.tenant_id""")
FORGET_SIGNALS = text("DELETE FROM kept_signals WHERE deadline <= now()")
