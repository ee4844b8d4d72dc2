-- The tables as the first release made them: what a database may be migrated from.
CREATE TABLE admissions (
	job_id TEXT COLLATE "C" NOT NULL, 
	tenant_id TEXT COLLATE "C" NOT NULL, 
	digest TEXT COLLATE "C" NOT NULL, 
	revision BIGINT NOT NULL, 
	PRIMARY KEY (job_id)
);

CREATE TABLE dead_letters (
	dead_letter_id TEXT COLLATE "C" NOT NULL, 
	job_id TEXT COLLATE "C" DEFAULT '' NOT NULL, 
	tenant_id TEXT COLLATE "C" DEFAULT '' NOT NULL, 
	doc_id TEXT COLLATE "C" DEFAULT '' NOT NULL, 
	stage TEXT COLLATE "C" DEFAULT '' NOT NULL, 
	attempt BIGINT DEFAULT '0' NOT NULL, 
	code TEXT COLLATE "C" DEFAULT '' NOT NULL, 
	message TEXT COLLATE "C" DEFAULT '' NOT NULL, 
	causes TEXT COLLATE "C" DEFAULT '' NOT NULL, 
	disposition TEXT COLLATE "C" DEFAULT '' NOT NULL, 
	worker TEXT COLLATE "C" DEFAULT '' NOT NULL, 
	topic TEXT COLLATE "C" DEFAULT '' NOT NULL, 
	partition INTEGER NOT NULL, 
	"offset" BIGINT NOT NULL, 
	dead_at TIMESTAMP WITH TIME ZONE NOT NULL, 
	PRIMARY KEY (dead_letter_id)
);

CREATE INDEX dead_letters_by_job ON dead_letters (job_id);

CREATE INDEX dead_letters_by_time ON dead_letters (dead_at DESC, dead_letter_id);

CREATE TABLE documents (
	job_id TEXT COLLATE "C" NOT NULL, 
	doc_id TEXT COLLATE "C" NOT NULL, 
	tenant_id TEXT COLLATE "C" DEFAULT '' NOT NULL, 
	pipeline_name TEXT COLLATE "C" DEFAULT '' NOT NULL, 
	pipeline_version TEXT COLLATE "C" DEFAULT '' NOT NULL, 
	is_known BOOLEAN DEFAULT false NOT NULL, 
	page_number BIGINT, 
	source_id TEXT COLLATE "C" DEFAULT '' NOT NULL, 
	uri TEXT COLLATE "C" DEFAULT '' NOT NULL, 
	last_event_at TIMESTAMP WITH TIME ZONE, 
	stage_rank SMALLINT DEFAULT '0' NOT NULL, 
	current_stage TEXT COLLATE "C" DEFAULT '' NOT NULL, 
	first_event_at TIMESTAMP WITH TIME ZONE, 
	retry_count_per_stage JSONB DEFAULT '{}' NOT NULL, 
	pdf_downloaded BOOLEAN DEFAULT false NOT NULL, 
	pdf_ir_ready BOOLEAN DEFAULT false NOT NULL, 
	pdf_ir_failed BOOLEAN DEFAULT false NOT NULL, 
	post_pdf_started BOOLEAN DEFAULT false NOT NULL, 
	did_work BOOLEAN DEFAULT false NOT NULL, 
	finished_leaves TEXT[] COLLATE "C" DEFAULT '{}' NOT NULL, 
	leaves BIGINT DEFAULT '0' NOT NULL, 
	failure_at TIMESTAMP WITH TIME ZONE, 
	failure_stage TEXT COLLATE "C" DEFAULT '' NOT NULL, 
	failure_code TEXT COLLATE "C" DEFAULT '' NOT NULL, 
	failure_message TEXT COLLATE "C" DEFAULT '' NOT NULL, 
	failure_disposition TEXT COLLATE "C" DEFAULT '' NOT NULL, 
	state TEXT COLLATE "C" GENERATED ALWAYS AS (
CASE
  WHEN NOT is_known THEN 'expected'
  WHEN failure_at IS NOT NULL THEN failure_disposition
  WHEN leaves > 0 AND cardinality(finished_leaves) >= leaves
    THEN CASE WHEN did_work THEN 'completed' ELSE 'skipped' END
  ELSE 'in_flight'
END) STORED NOT NULL, 
	state_before TEXT COLLATE "C" DEFAULT '' NOT NULL, 
	PRIMARY KEY (job_id, doc_id)
)
 WITH (fillfactor = 80);

CREATE INDEX documents_by_state ON documents (job_id, state, doc_id);

CREATE INDEX documents_by_tenant ON documents (tenant_id, doc_id);

CREATE TABLE graph_claims (
	tenant_id TEXT COLLATE "C" NOT NULL, 
	claim_id TEXT COLLATE "C" NOT NULL, 
	doc_id TEXT COLLATE "C" NOT NULL, 
	subject TEXT COLLATE "C" NOT NULL, 
	predicate TEXT COLLATE "C" NOT NULL, 
	object_entity TEXT COLLATE "C" NOT NULL, 
	object_value TEXT NOT NULL, 
	qualifiers JSONB NOT NULL, 
	confidence FLOAT NOT NULL, 
	method TEXT NOT NULL, 
	evidence JSONB NOT NULL, 
	PRIMARY KEY (tenant_id, claim_id, doc_id)
);

CREATE INDEX graph_claims_by_document ON graph_claims (tenant_id, doc_id);

CREATE INDEX graph_claims_by_object ON graph_claims (tenant_id, object_entity, confidence DESC, predicate, claim_id) WHERE object_entity != '';

CREATE INDEX graph_claims_by_subject ON graph_claims (tenant_id, subject, confidence DESC, predicate, claim_id);

CREATE TABLE graph_documents (
	tenant_id TEXT COLLATE "C" NOT NULL, 
	doc_id TEXT COLLATE "C" NOT NULL, 
	generation TEXT COLLATE "C" NOT NULL, 
	revision BIGINT NOT NULL, 
	job_id TEXT COLLATE "C" NOT NULL, 
	title TEXT NOT NULL, 
	source TEXT NOT NULL, 
	source_id TEXT NOT NULL, 
	PRIMARY KEY (tenant_id, doc_id)
);

CREATE TABLE graph_entities (
	tenant_id TEXT COLLATE "C" NOT NULL, 
	entity_id TEXT COLLATE "C" NOT NULL, 
	doc_id TEXT COLLATE "C" NOT NULL, 
	type TEXT COLLATE "C" NOT NULL, 
	name TEXT COLLATE "C" NOT NULL, 
	aliases TEXT[] NOT NULL, 
	identifiers JSONB NOT NULL, 
	PRIMARY KEY (tenant_id, entity_id, doc_id)
);

CREATE INDEX graph_entities_by_document ON graph_entities (tenant_id, doc_id);

CREATE TABLE graph_names (
	tenant_id TEXT COLLATE "C" NOT NULL, 
	folded TEXT COLLATE "C" NOT NULL, 
	entity_id TEXT COLLATE "C" NOT NULL, 
	doc_id TEXT COLLATE "C" NOT NULL, 
	PRIMARY KEY (tenant_id, folded, entity_id, doc_id)
);

CREATE INDEX graph_names_by_document ON graph_names (tenant_id, doc_id);

CREATE TABLE graph_passages (
	tenant_id TEXT COLLATE "C" NOT NULL, 
	doc_id TEXT COLLATE "C" NOT NULL, 
	block_id TEXT COLLATE "C" NOT NULL, 
	section_path TEXT[] NOT NULL, 
	text TEXT NOT NULL, 
	provenance JSONB NOT NULL, 
	PRIMARY KEY (tenant_id, doc_id, block_id)
);

CREATE TABLE job_stages (
	job_id TEXT COLLATE "C" NOT NULL, 
	stage TEXT COLLATE "C" NOT NULL, 
	stage_type TEXT COLLATE "C" DEFAULT '' NOT NULL, 
	started BIGINT DEFAULT '0' NOT NULL, 
	retrying BIGINT DEFAULT '0' NOT NULL, 
	completed BIGINT DEFAULT '0' NOT NULL, 
	reused BIGINT DEFAULT '0' NOT NULL, 
	failed BIGINT DEFAULT '0' NOT NULL, 
	duration_us BIGINT DEFAULT '0' NOT NULL, 
	PRIMARY KEY (job_id, stage)
);

CREATE TABLE jobs (
	job_id TEXT COLLATE "C" NOT NULL, 
	tenant_id TEXT COLLATE "C" DEFAULT '' NOT NULL, 
	pipeline_name TEXT COLLATE "C" DEFAULT '' NOT NULL, 
	pipeline_version TEXT COLLATE "C" DEFAULT '' NOT NULL, 
	pipeline_digest TEXT COLLATE "C" DEFAULT '' NOT NULL, 
	revision BIGINT DEFAULT '0' NOT NULL, 
	admitted_at TIMESTAMP WITH TIME ZONE, 
	source TEXT COLLATE "C" DEFAULT '' NOT NULL, 
	selection TEXT COLLATE "C" DEFAULT '' NOT NULL, 
	rejected_at TIMESTAMP WITH TIME ZONE, 
	faults TEXT COLLATE "C" DEFAULT '' NOT NULL, 
	last_page BIGINT DEFAULT '-1' NOT NULL, 
	max_page BIGINT DEFAULT '-1' NOT NULL, 
	total_records BIGINT, 
	first_event_at TIMESTAMP WITH TIME ZONE NOT NULL, 
	last_event_at TIMESTAMP WITH TIME ZONE NOT NULL, 
	documents BIGINT DEFAULT '0' NOT NULL, 
	completed BIGINT DEFAULT '0' NOT NULL, 
	skipped BIGINT DEFAULT '0' NOT NULL, 
	failed BIGINT DEFAULT '0' NOT NULL, 
	rejected BIGINT DEFAULT '0' NOT NULL, 
	pages_done BIGINT DEFAULT '0' NOT NULL, 
	pages_failed BIGINT DEFAULT '0' NOT NULL, 
	state TEXT COLLATE "C" GENERATED ALWAYS AS (
CASE
  WHEN admitted_at IS NULL AND rejected_at IS NOT NULL THEN 'rejected'
  WHEN max_page >= 0 AND pages_done + pages_failed = max_page + 1 AND (last_page = max_page OR pages_failed > 0)
       AND documents = completed + skipped + failed + rejected
    THEN CASE WHEN failed + rejected + pages_failed > 0 THEN 'completed_with_failures' ELSE 'completed' END
  WHEN max_page >= 0 OR documents > 0 THEN 'running'
  ELSE 'admitted'
END) STORED NOT NULL, 
	PRIMARY KEY (job_id)
);

CREATE INDEX jobs_by_tenant ON jobs (tenant_id, first_event_at DESC, job_id DESC);

CREATE TABLE pages (
	job_id TEXT COLLATE "C" NOT NULL, 
	number BIGINT NOT NULL, 
	is_done BOOLEAN DEFAULT false NOT NULL, 
	is_last BOOLEAN DEFAULT false NOT NULL, 
	documents BIGINT DEFAULT '0' NOT NULL, 
	refused BIGINT DEFAULT '0' NOT NULL, 
	total BIGINT, 
	done_at TIMESTAMP WITH TIME ZONE, 
	failure_at TIMESTAMP WITH TIME ZONE, 
	failure_code TEXT COLLATE "C" DEFAULT '' NOT NULL, 
	failure_message TEXT COLLATE "C" DEFAULT '' NOT NULL, 
	state TEXT COLLATE "C" GENERATED ALWAYS AS (CASE WHEN is_done THEN 'done' ELSE 'failed' END) STORED NOT NULL, 
	state_before TEXT COLLATE "C" DEFAULT '' NOT NULL, 
	PRIMARY KEY (job_id, number)
);

CREATE TABLE rejections (
	rejection_id TEXT COLLATE "C" NOT NULL, 
	job_id TEXT COLLATE "C" DEFAULT '' NOT NULL, 
	tenant_id TEXT COLLATE "C" DEFAULT '' NOT NULL, 
	faults TEXT COLLATE "C" DEFAULT '' NOT NULL, 
	topic TEXT COLLATE "C" DEFAULT '' NOT NULL, 
	partition INTEGER, 
	"offset" BIGINT, 
	rejected_at TIMESTAMP WITH TIME ZONE NOT NULL, 
	PRIMARY KEY (rejection_id)
);

CREATE INDEX rejections_by_time ON rejections (rejected_at DESC, rejection_id);

CREATE TABLE stage_runs (
	job_id TEXT COLLATE "C" NOT NULL, 
	doc_id TEXT COLLATE "C" NOT NULL, 
	page BIGINT NOT NULL, 
	stage TEXT COLLATE "C" NOT NULL, 
	attempt BIGINT NOT NULL, 
	stage_type TEXT COLLATE "C" DEFAULT '' NOT NULL, 
	started_at TIMESTAMP WITH TIME ZONE, 
	started_by TEXT COLLATE "C" DEFAULT '' NOT NULL, 
	outcome SMALLINT, 
	finished_at TIMESTAMP WITH TIME ZONE, 
	worker TEXT COLLATE "C" DEFAULT '' NOT NULL, 
	duration_us BIGINT DEFAULT '0' NOT NULL, 
	failure_code TEXT COLLATE "C" DEFAULT '' NOT NULL, 
	failure_message TEXT COLLATE "C" DEFAULT '' NOT NULL, 
	did_work BOOLEAN DEFAULT false NOT NULL, 
	state TEXT COLLATE "C" GENERATED ALWAYS AS (
CASE outcome WHEN 0 THEN 'failed'
             WHEN 1 THEN CASE WHEN did_work THEN 'completed' ELSE 'reused' END
             WHEN 2 THEN 'retrying'
             ELSE 'started'
END) STORED NOT NULL, 
	state_before TEXT COLLATE "C" DEFAULT '' NOT NULL, 
	duration_us_before BIGINT DEFAULT '0' NOT NULL, 
	PRIMARY KEY (job_id, doc_id, page, stage, attempt)
)
 WITH (fillfactor = 80);

CREATE TABLE topologies (
	digest TEXT COLLATE "C" NOT NULL, 
	canonical_json TEXT COLLATE "C" DEFAULT '' NOT NULL, 
	PRIMARY KEY (digest)
);

CREATE TABLE waits (
	wait_id TEXT COLLATE "C" NOT NULL, 
	kind TEXT COLLATE "C" NOT NULL, 
	state TEXT DEFAULT 'waiting' NOT NULL, 
	tenant_id TEXT COLLATE "C" NOT NULL, 
	job_id TEXT COLLATE "C" NOT NULL, 
	doc_id TEXT COLLATE "C" NOT NULL, 
	stage TEXT COLLATE "C" NOT NULL, 
	page BIGINT NOT NULL, 
	arrived_from TEXT COLLATE "C" NOT NULL, 
	needed INTEGER NOT NULL, 
	ledger_field TEXT, 
	equals JSONB, 
	due_at TIMESTAMP WITH TIME ZONE, 
	arrived_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL, 
	released_at TIMESTAMP WITH TIME ZONE, 
	reason TEXT DEFAULT '' NOT NULL, 
	request TEXT NOT NULL, 
	origin TEXT NOT NULL, 
	PRIMARY KEY (wait_id)
);

CREATE INDEX waits_by_job ON waits (job_id, doc_id);

CREATE INDEX waits_due ON waits (due_at) WHERE state = 'waiting' AND due_at IS NOT NULL;

CREATE INDEX waits_handed_out ON waits (job_id, page) WHERE kind = 'page' AND state = 'released';

CREATE INDEX waits_waiting ON waits (kind, arrived_at) WHERE state = 'waiting';
