"""The first tables: jobs, offsets, api_keys.

A migration is history: it repeats what it makes and must not import `storage.tables`, which goes on changing.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_TEXT = sa.String().with_variant(sa.String(collation="C"), "postgresql")


def upgrade() -> None:
    _create_jobs()
    op.create_table(
        "offsets",
        sa.Column("stream", _TEXT, nullable=False),
        sa.Column("position", _TEXT, nullable=False),
        sa.PrimaryKeyConstraint("stream", name="pk_offsets"),
    )
    op.create_table(
        "api_keys",
        sa.Column("id", _TEXT, nullable=False),
        sa.Column("name", _TEXT, nullable=False),
        sa.Column("role", _TEXT, nullable=False),
        sa.Column("tenant", _TEXT, nullable=False),
        sa.Column("weight", sa.Double(), nullable=False),
        sa.Column("digest", _TEXT, nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("revoked_at", sa.Double()),
        sa.PrimaryKeyConstraint("id", name="pk_api_keys"),
    )
    op.create_index("uq_api_keys_digest", "api_keys", ["digest"], unique=True)
    _partial_index("uq_api_keys_live_name", "api_keys", ["name"], "revoked_at IS NULL", unique=True)


def downgrade() -> None:
    for table in ("api_keys", "offsets", "jobs"):
        op.drop_table(table)


def _create_jobs() -> None:
    op.create_table(
        "jobs",
        sa.Column("id", _TEXT, nullable=False),
        sa.Column("model", _TEXT, nullable=False),
        sa.Column("endpoint", _TEXT, nullable=False),
        sa.Column("lane", _TEXT, nullable=False),
        sa.Column("tenant", _TEXT, nullable=False),
        sa.Column("source", _TEXT, nullable=False),
        sa.Column("durable", sa.Boolean(), nullable=False),
        sa.Column("kept", sa.Boolean(), nullable=False),
        sa.Column("stream", sa.Boolean(), nullable=False),
        sa.Column("units", sa.Double(), nullable=False),
        sa.Column("max_attempts", sa.Integer(), nullable=False),
        sa.Column("run_timeout", sa.Double(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("state", _TEXT, nullable=False),
        sa.Column("rank", sa.SmallInteger(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("in_queue", sa.Boolean(), nullable=False),
        sa.Column("delivered", sa.Boolean(), nullable=False),
        sa.Column("queued_at", sa.Double()),
        sa.Column("started_at", sa.Double()),
        sa.Column("finished_at", sa.Double()),
        sa.Column("replica", _TEXT),
        sa.Column("progress", sa.Double()),
        sa.Column("artifact", _TEXT),
        sa.Column("result_type", _TEXT, nullable=False),
        sa.Column("error_code", _TEXT),
        sa.Column("error_message", _TEXT),
        sa.Column("error_status", sa.Integer()),
        sa.Column("error_param", _TEXT),
        sa.Column("metadata", sa.JSON(), nullable=False),
        sa.Column("result", sa.LargeBinary()),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_jobs"),
    )
    op.create_index("ix_jobs_state_id", "jobs", ["state", "id"])
    op.create_index("ix_jobs_source_id", "jobs", ["source", "id"])
    op.create_index("ix_jobs_tenant_id", "jobs", ["tenant", "id"])
    _partial_index("ix_jobs_unfinished", "jobs", ["id"], "durable AND rank < 3")
    _partial_index("ix_jobs_offline", "jobs", ["id"], "NOT in_queue AND rank < 3")
    _partial_index("ix_jobs_undelivered", "jobs", ["source", "id"], "durable AND rank = 3 AND NOT delivered")


def _partial_index(name: str, table: str, columns: list[str], where: str, *, unique: bool = False) -> None:
    condition = sa.text(where)
    op.create_index(name, table, columns, unique=unique, sqlite_where=condition, postgresql_where=condition)
