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
UNFINISHED = text("durable AND rank < 3")
OFFLINE = text("NOT in_queue AND rank < 3")
UNDELIVERED = text("durable AND rank = 3 AND NOT delivered")

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
    # The large ones last: SQLite reads a row from its start and leaves the pages of unread columns alone.
    Column("result", LargeBinary),
    Column("body", LargeBinary, nullable=False),
    Index("ix_jobs_state_id", "state", "id"),
    Index("ix_jobs_source_id", "source", "id"),
    Index("ix_jobs_tenant_id", "tenant", "id"),
    Index("ix_jobs_unfinished", "id", sqlite_where=UNFINISHED, postgresql_where=UNFINISHED),
    Index("ix_jobs_offline", "id", sqlite_where=OFFLINE, postgresql_where=OFFLINE),
    Index("ix_jobs_undelivered", "source", "id", sqlite_where=UNDELIVERED, postgresql_where=UNDELIVERED),
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
