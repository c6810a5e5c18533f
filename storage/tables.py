"""The tables, as the code sees them; `storage/migrations` makes them, and a test keeps the two equal.

No statements here. Times are Unix seconds (UTC). Text compares by code point on both databases.
"""

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    text,
)

# Prefix searches and pages need code-point order; a PostgreSQL database may sort by a language's rules.
Text = String().with_variant(String(collation="C"), "postgresql")

# A query uses a partial index only if it repeats the condition word for word, so both take it from here.
UNFINISHED = text("durable AND rank IN (1, 2)")
OFFLINE = text("NOT in_queue AND rank < 3")
SCHEDULED = text("rank = 0")
UNDELIVERED = text("durable AND rank = 3 AND NOT delivered")
DEAD = text("state = 'failed'")

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    }
)

jobs = Table(
    "jobs",
    metadata,
    # A UUID of version 7, so the order of ids is the order of creation.
    Column("id", Text, primary_key=True),
    Column("model", Text, nullable=False),
    Column("endpoint", Text, nullable=False),
    Column("lane", Text, nullable=False),
    Column("tenant", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("durable", Boolean, nullable=False),
    Column("kept", Boolean, nullable=False),
    Column("stream", Boolean, nullable=False),
    Column("units", Double, nullable=False),
    Column("max_attempts", Integer, nullable=False),
    Column("run_timeout", Double, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("state", Text, nullable=False),
    # inferq.job.RANK of the state: the forward-only rule is a comparison in SQL.
    Column("rank", SmallInteger, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("in_queue", Boolean, nullable=False),
    Column("delivered", Boolean, nullable=False),
    Column("queued_at", Double),
    Column("started_at", Double),
    Column("finished_at", Double),
    Column("replica", Text),
    Column("progress", Double),
    Column("artifact", Text),
    Column("result_type", Text, nullable=False),
    Column("error_code", Text),
    Column("error_message", Text),
    Column("error_status", Integer),
    Column("error_param", Text),
    Column("metadata", JSON, nullable=False),
    # What a scheduled job waits for: its time, or the jobs in `dependencies`.
    Column("due_at", Double),
    # Empty, or {"ids": [...], "on_failure": "fail" or "run"}.
    Column("depends_on", JSON),
    Column("expires_at", Double),
    Column("webhook", Text),
    Column("group_id", Text),
    Column("device_seconds", Double),
    Column("served_by", Text),
    # The large ones last: SQLite reads a row from its start and leaves the pages of unread columns alone.
    Column("result", LargeBinary),
    Column("body", LargeBinary, nullable=False),
    Index("ix_jobs_state_id", "state", "id"),
    Index("ix_jobs_source_id", "source", "id"),
    Index("ix_jobs_tenant_id", "tenant", "id"),
    Index("ix_jobs_group_id_id", "group_id", "id"),
    Index("ix_jobs_due", "due_at", sqlite_where=SCHEDULED, postgresql_where=SCHEDULED),
    Index("ix_jobs_scheduled_expiry", "expires_at", sqlite_where=SCHEDULED, postgresql_where=SCHEDULED),
    Index("ix_jobs_scheduled_tenant", "tenant", sqlite_where=SCHEDULED, postgresql_where=SCHEDULED),
    Index("ix_jobs_unfinished", "id", sqlite_where=UNFINISHED, postgresql_where=UNFINISHED),
    Index("ix_jobs_offline", "id", sqlite_where=OFFLINE, postgresql_where=OFFLINE),
    Index("ix_jobs_undelivered", "source", "id", sqlite_where=UNDELIVERED, postgresql_where=UNDELIVERED),
    # Only failed jobs are in them, so a job that succeeds pays for none. Without the state, which is the same in all,
    # SQLite would rather take ix_jobs_state_id and sort.
    Index("ix_jobs_dead", "state", "finished_at", "id", sqlite_where=DEAD, postgresql_where=DEAD),
    Index("ix_jobs_dead_model", "model", "finished_at", "id", sqlite_where=DEAD, postgresql_where=DEAD),
    Index("ix_jobs_dead_tenant", "tenant", "finished_at", "id", sqlite_where=DEAD, postgresql_where=DEAD),
    Index("ix_jobs_dead_code", "error_code", "finished_at", "id", sqlite_where=DEAD, postgresql_where=DEAD),
)

offsets = Table(
    "offsets",
    metadata,
    Column("stream", Text, primary_key=True),
    Column("position", Text, nullable=False),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("tenant", Text, nullable=False),
    Column("weight", Double, nullable=False),
    # sha256 of the key in hex. The key is random, so a fast hash is enough.
    Column("digest", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("revoked_at", Double),
    # The highest lane that its jobs may use.
    Column("lane", Text, nullable=False, server_default="high"),
    Index("uq_api_keys_digest", "digest", unique=True),
    # A name is free again once its key is revoked.
    Index(
        "uq_api_keys_live_name",
        "name",
        unique=True,
        sqlite_where=text("revoked_at IS NULL"),
        postgresql_where=text("revoked_at IS NULL"),
    ),
)

dependencies = Table(
    "dependencies",
    metadata,
    Column("job_id", Text, primary_key=True),
    Column("needs", Text, primary_key=True),
    Index("ix_dependencies_needs", "needs"),
)

idempotency = Table(
    "idempotency",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("job_id", Text, nullable=False),
    # sha256 of what was asked, in hex: another request under the same key is refused.
    Column("digest", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    Index("ix_idempotency_created_at", "created_at"),
)

groups = Table(
    "groups",
    metadata,
    Column("id", Text, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("total", Integer, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("finished_at", Double),
    Column("webhook", Text),
    Column("metadata", JSON, nullable=False),
    Index("ix_groups_tenant_id", "tenant", "id"),
)

schedules = Table(
    "schedules",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("tenant", Text, nullable=False),
    Column("cron", Text, nullable=False),
    Column("timezone", Text, nullable=False),
    # The job's description as a caller wrote it, JSON.
    Column("request", LargeBinary, nullable=False),
    Column("enabled", Boolean, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("next_at", Double),
    Column("last_at", Double),
    Column("last_job", Text),
    Column("last_error", Text),
    Index("uq_schedules_tenant_name", "tenant", "name", unique=True),
    Index("ix_schedules_next_at", "next_at"),
)

deliveries = Table(
    "deliveries",
    metadata,
    # A UUID of version 7; it is the webhook's own id, the same at each try.
    Column("id", Text, primary_key=True),
    Column("url", Text, nullable=False),
    # Receivers on one host share its limit.
    Column("host", Text, nullable=False),
    Column("event", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("tenant", Text, nullable=False),
    Column("payload", LargeBinary, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("attempts", Integer, nullable=False),
    # When it is tried next; empty once it has arrived or is given up.
    Column("next_at", Double),
    Column("delivered_at", Double),
    Column("last_error", Text),
    Index("ix_deliveries_next_at", "next_at"),
    Index("ix_deliveries_subject", "subject"),
)

usage = Table(
    "usage",
    metadata,
    Column("tenant", Text, primary_key=True),
    # A day of UTC as 2026-11-21.
    Column("day", Text, primary_key=True),
    Column("model", Text, primary_key=True),
    Column("jobs", Integer, nullable=False),
    Column("device_seconds", Double, nullable=False),
)

pauses = Table(
    "pauses",
    metadata,
    # What is paused: a model, a tenant, a lane, or, drained, a replica or a node.
    Column("kind", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("created_at", Double, nullable=False),
    Column("reason", Text),
)
