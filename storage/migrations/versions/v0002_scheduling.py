"""Jobs that wait for a time or for others, idempotency, groups, schedules, webhooks, usage, pauses.

A migration is history: it repeats what it makes and must not import `storage.tables`, which goes on changing.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_TEXT = sa.String().with_variant(sa.String(collation="C"), "postgresql")
_NEW_TABLES = ("dependencies", "idempotency", "groups", "schedules", "deliveries", "usage", "pauses")
_DEAD_INDEXES = {
    "ix_jobs_dead": ["state", "finished_at", "id"],
    "ix_jobs_dead_model": ["model", "finished_at", "id"],
    "ix_jobs_dead_tenant": ["tenant", "finished_at", "id"],
    "ix_jobs_dead_code": ["error_code", "finished_at", "id"],
}
_NEW_COLUMNS = ("due_at", "depends_on", "expires_at", "webhook", "group_id", "device_seconds", "served_by")


def upgrade() -> None:
    _extend_jobs()
    op.add_column("api_keys", sa.Column("lane", _TEXT, nullable=False, server_default="high"))
    _create_waiting_tables()
    _create_schedules()
    _create_deliveries()
    _create_accounts()


def downgrade() -> None:
    for table in _NEW_TABLES:
        op.drop_table(table)
    op.drop_column("api_keys", "lane")
    for index in (
        "ix_jobs_group_id_id",
        "ix_jobs_due",
        "ix_jobs_scheduled_expiry",
        "ix_jobs_scheduled_tenant",
        "ix_jobs_unfinished",
        *_DEAD_INDEXES,
    ):
        op.drop_index(index, "jobs")
    for column in _NEW_COLUMNS:
        op.drop_column("jobs", column)
    _partial_index("ix_jobs_unfinished", "jobs", ["id"], "durable AND rank < 3")


def _extend_jobs() -> None:
    for column in (
        sa.Column("due_at", sa.Double()),
        sa.Column("depends_on", sa.JSON()),
        sa.Column("expires_at", sa.Double()),
        sa.Column("webhook", _TEXT),
        sa.Column("group_id", _TEXT),
        sa.Column("device_seconds", sa.Double()),
        sa.Column("served_by", _TEXT),
    ):
        op.add_column("jobs", column)
    op.create_index("ix_jobs_group_id_id", "jobs", ["group_id", "id"])
    _partial_index("ix_jobs_due", "jobs", ["due_at"], "rank = 0")
    _partial_index("ix_jobs_scheduled_expiry", "jobs", ["expires_at"], "rank = 0")
    _partial_index("ix_jobs_scheduled_tenant", "jobs", ["tenant"], "rank = 0")
    for name, columns in _DEAD_INDEXES.items():
        _partial_index(name, "jobs", columns, "state = 'failed'")
    op.drop_index("ix_jobs_unfinished", "jobs")
    _partial_index("ix_jobs_unfinished", "jobs", ["id"], "durable AND rank IN (1, 2)")


def _create_waiting_tables() -> None:
    op.create_table(
        "dependencies",
        sa.Column("job_id", _TEXT, nullable=False),
        sa.Column("needs", _TEXT, nullable=False),
        sa.PrimaryKeyConstraint("job_id", "needs", name="pk_dependencies"),
    )
    op.create_index("ix_dependencies_needs", "dependencies", ["needs"])
    op.create_table(
        "idempotency",
        sa.Column("tenant", _TEXT, nullable=False),
        sa.Column("key", _TEXT, nullable=False),
        sa.Column("job_id", _TEXT, nullable=False),
        sa.Column("digest", _TEXT, nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "key", name="pk_idempotency"),
    )
    op.create_index("ix_idempotency_created_at", "idempotency", ["created_at"])
    op.create_table(
        "groups",
        sa.Column("id", _TEXT, nullable=False),
        sa.Column("tenant", _TEXT, nullable=False),
        sa.Column("total", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("finished_at", sa.Double()),
        sa.Column("webhook", _TEXT),
        sa.Column("metadata", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_groups"),
    )
    op.create_index("ix_groups_tenant_id", "groups", ["tenant", "id"])


def _create_schedules() -> None:
    op.create_table(
        "schedules",
        sa.Column("id", _TEXT, nullable=False),
        sa.Column("name", _TEXT, nullable=False),
        sa.Column("tenant", _TEXT, nullable=False),
        sa.Column("cron", _TEXT, nullable=False),
        sa.Column("timezone", _TEXT, nullable=False),
        sa.Column("request", sa.LargeBinary(), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("next_at", sa.Double()),
        sa.Column("last_at", sa.Double()),
        sa.Column("last_job", _TEXT),
        sa.Column("last_error", _TEXT),
        sa.PrimaryKeyConstraint("id", name="pk_schedules"),
    )
    op.create_index("uq_schedules_tenant_name", "schedules", ["tenant", "name"], unique=True)
    op.create_index("ix_schedules_next_at", "schedules", ["next_at"])


def _create_deliveries() -> None:
    op.create_table(
        "deliveries",
        sa.Column("id", _TEXT, nullable=False),
        sa.Column("url", _TEXT, nullable=False),
        sa.Column("host", _TEXT, nullable=False),
        sa.Column("event", _TEXT, nullable=False),
        sa.Column("subject", _TEXT, nullable=False),
        sa.Column("tenant", _TEXT, nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_at", sa.Double()),
        sa.Column("delivered_at", sa.Double()),
        sa.Column("last_error", _TEXT),
        sa.PrimaryKeyConstraint("id", name="pk_deliveries"),
    )
    op.create_index("ix_deliveries_next_at", "deliveries", ["next_at"])
    op.create_index("ix_deliveries_subject", "deliveries", ["subject"])


def _create_accounts() -> None:
    op.create_table(
        "usage",
        sa.Column("tenant", _TEXT, nullable=False),
        sa.Column("day", _TEXT, nullable=False),
        sa.Column("model", _TEXT, nullable=False),
        sa.Column("jobs", sa.Integer(), nullable=False),
        sa.Column("device_seconds", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "day", "model", name="pk_usage"),
    )
    op.create_table(
        "pauses",
        sa.Column("kind", _TEXT, nullable=False),
        sa.Column("name", _TEXT, nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("reason", _TEXT),
        sa.PrimaryKeyConstraint("kind", "name", name="pk_pauses"),
    )


def _partial_index(name: str, table: str, columns: list[str], where: str) -> None:
    condition = sa.text(where)
    op.create_index(name, table, columns, sqlite_where=condition, postgresql_where=condition)
