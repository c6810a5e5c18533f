"""`python -m watchers` as users run it: files in, files out."""

import signal
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.watchers.home import MODEL, Site, listed, read_json, start, until, until_sync


async def test_a_dropped_file_becomes_a_job_and_its_result_a_file(site: Site) -> None:
    with site.process():
        site.drop("hello.json", prompt="hello", priority="high", metadata={"batch": "7"}, stream=True)
        await until(lambda: listed(site.folders.temp))
        assert not listed(site.folders.inbox)
        (job,) = await site.jobs()
        assert (job.spec.durable, job.spec.kept, job.spec.lane, job.spec.tenant) == (
            True,
            True,
            "high",
            "files",
        )
        assert (job.spec.source, job.spec.metadata) == (
            f"file:{site.folders.inbox}/hello.json",
            {"batch": "7"},
        )
        assert not job.spec.stream
        async with site.working():
            await until(lambda: listed(site.folders.archive))
    written = read_json(site.result("hello.json"))
    assert written["result"] == {"choices": [{"text": "HELLO"}]}
    assert (written["job_id"], written["model"], written["state"]) == (job.id, MODEL, "succeeded")
    assert written["finished_at"] >= written["created_at"] > 0
    assert listed(site.folders.archive) == ["hello.json"]
    assert not listed(site.folders.temp)
    assert not listed(site.folders.errors)


async def test_a_bad_file_and_a_failed_job_end_in_errors(site: Site) -> None:
    with site.process():
        async with site.working():
            site.drop("bad.json", b"{ no")
            site.drop("fail.json", prompt="fail")
            await until(lambda: len(listed(site.folders.errors)) == 4)
    assert listed(site.folders.errors) == ["bad.error.json", "bad.json", "fail.error.json", "fail.json"]
    bad, failed = read_json(site.error("bad.error.json")), read_json(site.error("fail.error.json"))
    assert (bad["file"], bad["job_id"], bad["code"], bad["param"]) == (
        "bad.json",
        None,
        "invalid_request",
        None,
    )
    assert "not valid JSON" in bad["message"]
    assert abs(bad["at"] - time.time()) < 60
    assert (failed["code"], failed["message"], failed["param"]) == (
        "engine_error",
        "the engine said no",
        "prompt",
    )
    assert failed["job_id"] == (await site.jobs())[0].id
    assert not listed(site.folders.results)


async def test_a_thousand_files_at_once(site: Site) -> None:
    for number in range(1000):
        site.drop(f"{number:04}.json", prompt=str(number))
    with site.process() as running:
        async with site.working():
            await until(lambda: len(listed(site.folders.archive)) == 1000, timeout=90)
        memory = psutil.Process(running.pid).memory_info().rss
    assert len(listed(site.folders.results)) == 1000
    assert set(site.runs.values()) == {1}
    assert memory < 120 * 2**20


async def test_it_stops_quickly_and_cleanly(site: Site) -> None:
    with site.process() as running:
        site.drop("one.json")
        await until(lambda: listed(site.folders.temp))
        begun = time.monotonic()
        running.send_signal(signal.SIGTERM)
        await until(lambda: running.poll() is not None)
        assert running.returncode == 0
        assert time.monotonic() - begun < 2.0


async def test_one_watcher_per_directory(site: Site) -> None:
    with site.process() as first:
        site.drop("one.json")
        await until(lambda: listed(site.folders.temp))
        with site.process() as second:
            await until(lambda: second.poll() is not None)
            assert second.returncode == 2
            assert "another watcher works on" in site.log()
        assert first.poll() is None


async def test_the_store_may_come_later(site: Site) -> None:
    database = site.settings.home / "inferq.db"
    away = database.rename(database.with_suffix(".away"))
    with site.process():
        await until(lambda: "no database" in site.log())
        site.drop("one.json")
        away.rename(database)
        await until(lambda: listed(site.folders.temp))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("models: [", "not valid YAML"),
        ("directories: {watch_directory: a, output_directory: a}", "five different folders"),
        ("directories: {archive_directory: /proc/archive}", "cannot make /proc/archive"),
    ],
)
def test_an_unusable_configuration_is_one_line(tmp_path: Path, content: str, said: str) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(content)
    with start(config, tmp_path / "home") as running:
        _, output = running.communicate(timeout=30)
    assert running.returncode == 2
    assert said in output.decode()
    assert output.count(b"\n") == 1


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="needs a second file system")
def test_folders_on_two_file_systems_are_refused(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as elsewhere:
        config = tmp_path / "config.yaml"
        config.write_text(f"directories: {{archive_directory: {elsewhere}}}")
        with start(config, tmp_path / "home") as running:
            _, output = running.communicate(timeout=30)
    assert running.returncode == 2
    assert f"{elsewhere} is on another file system" in output.decode()


def test_a_missing_configuration_is_one_line(tmp_path: Path) -> None:
    with start(tmp_path / "none.yaml", tmp_path / "home") as running:
        _, output = running.communicate(timeout=30)
    assert running.returncode == 2
    assert b"cannot read" in output


class TestBackPressure:
    @pytest.fixture
    def overrides(self) -> dict[str, Any]:
        return {"queue": {"max_queue_size": 3}}

    async def test_a_full_queue_leaves_files_where_they_are(self, site: Site) -> None:
        for number in range(10):
            site.drop(f"{number}.json", prompt=str(number))
        with site.process():
            await until(lambda: len(listed(site.folders.temp)) == 3)
            site.drop("other.json", {"model": "demo-embed", "input": "not behind the full queue"})
            await until(lambda: any("other" in name for name in listed(site.folders.temp)))
            assert len(listed(site.folders.inbox)) == 7
            async with site.working():
                await until(lambda: len(listed(site.folders.archive)) == 10)
        assert not listed(site.folders.errors)
        assert set(site.runs.values()) == {1}


async def test_it_rests_when_there_is_nothing_to_do(site: Site) -> None:
    with site.process() as running:
        async with site.working():
            site.drop("one.json")
            await until(lambda: listed(site.folders.archive))
        process = psutil.Process(running.pid)
        before, begun = process.cpu_times(), time.monotonic()
        until_sync(lambda: time.monotonic() - begun > 3.0)
        after = process.cpu_times()
        assert process.memory_info().rss < 110 * 2**20
    assert (after.user + after.system) - (before.user + before.system) < 0.08
