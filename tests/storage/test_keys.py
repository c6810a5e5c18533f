"""API keys and the first admin key."""

import errno
import os
import stat
from pathlib import Path

import pytest
from sqlalchemy import select, text

from inferq import errors
from storage.keys import KeyStore, Role
from storage.tables import api_keys


async def test_a_key_is_found_by_its_text_alone(keys: KeyStore):
    made, plaintext = await keys.create("ci", Role.READONLY, tenant="team", weight=2.5)
    assert plaintext.startswith("iq-")
    assert await keys.find(plaintext) == made
    assert (made.name, made.role, made.tenant, made.weight) == ("ci", Role.READONLY, "team", 2.5)
    for wrong in ("", plaintext[:-1], plaintext.upper(), made.id, "iq-\x00\ud800"):
        assert await keys.find(wrong) is None


async def test_the_text_of_a_key_is_not_stored(keys: KeyStore):
    _, plaintext = await keys.create("ci", Role.USER)
    rows = await keys._database.read(lambda connection: connection.execute(select(api_keys)).all())
    assert plaintext.removeprefix("iq-") not in repr(rows)


async def test_tenant_is_the_name_unless_given(keys: KeyStore):
    made, _ = await keys.create("ci", Role.USER)
    assert made.tenant == "ci"


async def test_keys_are_listed_oldest_first_with_revoked_ones(keys: KeyStore):
    first, _ = await keys.create("one", Role.USER)
    second, _ = await keys.create("two", Role.ADMIN)
    gone = await keys.revoke("one")
    assert gone.revoked_at is not None
    assert await keys.list() == [gone, second]
    assert gone.id == first.id


@pytest.mark.parametrize("by", ["id", "name"])
async def test_a_revoked_key_opens_nothing_and_frees_its_name(keys: KeyStore, by: str):
    made, plaintext = await keys.create("ci", Role.USER)
    await keys.revoke(getattr(made, by))
    assert await keys.find(plaintext) is None
    with pytest.raises(errors.NotFound):
        await keys.revoke(getattr(made, by))
    again, _ = await keys.create("ci", Role.USER)
    assert again.id != made.id


async def test_two_live_keys_never_share_a_name(keys: KeyStore):
    await keys.create("ci", Role.USER)
    with pytest.raises(errors.Conflict):
        await keys.create("ci", Role.ADMIN)


@pytest.mark.parametrize(
    ("name", "weight"), [(" ", 1.0), ("a", 0.0), ("a", float("nan")), ("a", float("inf"))]
)
async def test_a_bad_name_or_weight_is_refused(keys: KeyStore, name: str, weight: float):
    with pytest.raises(errors.InvalidRequest):
        await keys.create(name, Role.USER, weight=weight)


async def test_the_first_admin_key_is_written_for_its_owner_only(keys: KeyStore, tmp_path: Path):
    file = tmp_path / "new" / "admin.key"
    plaintext = await keys.ensure_admin(file)
    assert file.read_text() == f"{plaintext}\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert (await keys.find(plaintext)).role is Role.ADMIN
    assert [path.name for path in file.parent.iterdir()] == ["admin.key"]


async def test_a_second_start_makes_nothing(keys: KeyStore, tmp_path: Path):
    await keys.ensure_admin(tmp_path / "admin.key")
    assert await keys.ensure_admin(tmp_path / "admin.key") is None
    assert len(await keys.list()) == 1


async def test_a_missing_file_means_a_new_key_beside_the_old(keys: KeyStore, tmp_path: Path):
    file = tmp_path / "admin.key"
    first = await keys.ensure_admin(file)
    file.unlink()
    second = await keys.ensure_admin(file)
    assert file.read_text().strip() == second
    assert await keys.find(first) is not None
    assert await keys.find(second) is not None


@pytest.mark.parametrize("content", ["", "iq-of-another-database\n", "\udcff"])
async def test_a_file_with_no_key_of_ours_is_replaced(keys: KeyStore, tmp_path: Path, content: str):
    file = tmp_path / "admin.key"
    await keys.ensure_admin(file)
    file.write_bytes(content.encode("utf-8", "surrogateescape"))
    plaintext = await keys.ensure_admin(file)
    assert file.read_text().strip() == plaintext


async def test_a_revoked_key_in_the_file_is_an_admins_choice(keys: KeyStore, tmp_path: Path):
    file = tmp_path / "admin.key"
    await keys.ensure_admin(file)
    await keys.create("boss", Role.ADMIN)
    await keys.revoke("admin")
    assert await keys.ensure_admin(file) is None


async def test_with_no_admin_left_a_new_key_is_made(keys: KeyStore, tmp_path: Path):
    file = tmp_path / "admin.key"
    await keys.ensure_admin(file)
    await keys.revoke("admin")
    assert await keys.ensure_admin(file) is not None


async def test_a_file_that_cannot_be_written_leaves_no_key_behind(
    keys: KeyStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(*_paths: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(errors.StoreUnavailable, match="cannot write"):
        await keys.ensure_admin(tmp_path / "new" / "admin.key")
    assert await keys.list() == []
    assert list((tmp_path / "new").iterdir()) == []


async def test_a_file_that_cannot_be_read_is_an_error(keys: KeyStore, tmp_path: Path):
    (tmp_path / "file").touch()
    await keys.create("boss", Role.ADMIN)
    with pytest.raises(errors.StoreUnavailable, match="cannot read"):
        await keys.ensure_admin(tmp_path / "file" / "admin.key")


async def test_the_database_itself_refuses_a_second_live_name(keys: KeyStore):
    await keys.create("ci", Role.USER)
    copy = text(
        "INSERT INTO api_keys (id, name, role, tenant, weight, digest, created_at) "
        "SELECT 'x', name, role, tenant, weight, 'x', created_at FROM api_keys"
    )
    with pytest.raises(errors.StoreUnavailable):
        await keys._database.write(lambda connection: connection.execute(copy))
