"""The command line without a server: what it loads, what it prints, how it ends."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
COMMANDS = (
    "up",
    "submit",
    "jobs",
    "dead",
    "groups",
    "schedules",
    "models",
    "queues",
    "status",
    "keys",
    "webhooks",
    "config",
    "doctor",
    "demo",
    "version",
)


def inferq(*arguments: str, cwd: Path = ROOT, **env: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("INFERQ")}
    return subprocess.run(
        [sys.executable, "-m", "inferq", *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**clean, "PYTHONPATH": str(ROOT), "TERM": "dumb", "COLUMNS": "80", **env},
        timeout=60,
        check=False,
    )


def loaded_by(*arguments: str) -> set[str]:
    """The modules that a command line has imported when it ends."""
    program = (
        "import atexit, sys\n"
        "atexit.register(lambda: print('\\n', *sys.modules, file=sys.stderr))\n"
        f"sys.argv = ['inferq', *{arguments!r}]\n"
        "from inferq.cli.main import main; main()"
    )
    env = {**os.environ, "INFERQ_URL": "http://127.0.0.1:1"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=env,
        timeout=60,
        check=False,
    )
    return set(done.stderr.splitlines()[-1].split())


HEAVY = {"inferq.config", "yaml", "psutil", "inferq.cli.stack.launch"}


@pytest.mark.parametrize(
    ("arguments", "absent"),
    [
        (("--help",), HEAVY | {"httpx2", "inferq.client"}),
        (("version",), HEAVY | {"httpx2", "inferq.client"}),
        (("models",), HEAVY),
        (("jobs", "list"), HEAVY),
    ],
    ids=["help", "version", "models", "jobs-list"],
)
def test_command_loads_only_what_it_needs(arguments: tuple[str, ...], absent: set[str]) -> None:
    assert not loaded_by(*arguments) & absent


def test_help_lists_commands_and_exit_codes() -> None:
    shown = inferq("--help").stdout
    assert all(f"│ {command} " in shown for command in COMMANDS)
    assert "130  interrupted" in shown
    assert max(map(len, shown.splitlines())) <= 80


@pytest.mark.parametrize(
    "command",
    [
        *COMMANDS,
        "jobs list",
        "jobs watch",
        "dead list",
        "dead groups",
        "dead show",
        "dead requeue",
        "dead purge",
        "models scan",
        "models pull",
        "keys create",
        "config check",
        "demo tour",
    ],
)
def test_every_command_has_help(command: str) -> None:
    done = inferq(*command.split(), "--help")
    assert done.returncode == 0, done.stderr
    assert "Usage:" in done.stdout


def test_wrong_command_is_a_usage_error_with_a_proposal() -> None:
    done = inferq("job")
    assert done.returncode == 2
    assert "Did you mean 'jobs'?" in done.stderr


def test_version_as_json() -> None:
    assert set(json.loads(inferq("version", "--json").stdout)) == {"inferq", "python"}


def test_absent_server_exits_9_and_says_what_to_do() -> None:
    done = inferq("jobs", "list", INFERQ_URL="http://127.0.0.1:1")
    assert done.returncode == 9
    assert done.stderr == (
        "error: no inferq answers at http://127.0.0.1:1: start it with `inferq up`, or set INFERQ_URL\n"
    )


def test_error_is_json_where_json_was_asked_for() -> None:
    done = inferq("models", "--json", INFERQ_URL="http://127.0.0.1:1")
    assert json.loads(done.stderr)["error"]["code"] == "service_unavailable"


def test_wrong_configuration_exits_2(tmp_path: Path) -> None:
    (tmp_path / "wrong.yaml").write_text("api: {prot: 1}")
    for command in (("config", "check"), ("config", "show"), ("up",)):
        done = inferq(*command, "--config", str(tmp_path / "wrong.yaml"))
        assert (done.returncode, done.stdout) == (2, "")
        assert "unknown key api.prot (did you mean port?)" in done.stderr


def test_config_show_has_what_the_environment_says() -> None:
    done = inferq("config", "show", "--json", INFERQ__API__PORT="9100")
    assert json.loads(done.stdout)["api"]["port"] == 9100


def test_doctor_tells_each_thing_and_what_to_do(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(
        "models: {m: {engine: nonesuch, source: models/m}}\nengines: {nonesuch: {python: nowhere}}"
    )
    done = inferq("doctor", "--json", "--config", str(config), "--home", str(tmp_path))
    findings = json.loads(done.stdout)
    assert done.returncode == 1
    assert {"python", "redis", "home", "disk", "ports", "models", "environments"} <= {
        f["subject"] for f in findings
    }
    assert all(finding["advice"] for finding in findings if finding["level"] != "ok")
    failed = {finding["subject"] for finding in findings if finding["level"] == "fail"}
    assert {"environments", "models"} <= failed


def test_doctor_tells_what_needs_no_files(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(
        "models:\n  voice: {engine: speech, source: espeak, type: tts}\n  echo: {engine: noop, source: none}\n"
        "  far: {engine: remote, source: 'http://10.0.0.1/v1'}\n  hub: {engine: embed, source: org/name}\n"
    )
    done = inferq("doctor", "--json", "--config", str(config), "--home", str(tmp_path))
    found = {
        f["found"].partition(": ")[0]: f["found"] for f in json.loads(done.stdout) if f["subject"] == "models"
    }
    assert "comes with the engine's packages" in found["voice"]
    assert found["echo"] == "echo: needs no files"
    assert found["far"] == "far: served at http://10.0.0.1/v1"
    assert "fetched from the hub" in found["hub"]


def test_tables_in_a_pipe_are_not_cut(tmp_path: Path) -> None:
    names = ["a" * 120, "b" * 120 + "/" + "c" * 120]
    for name in names:
        folder = tmp_path / "models" / name
        folder.mkdir(parents=True)
        (folder / "config.json").write_text('{"architectures": ["XForSequenceClassification"]}')
        (folder / "model.bin").write_text("weights")
    shown = inferq("models", "scan", "--home", str(tmp_path)).stdout
    head, *lines = shown.splitlines()
    assert head.split()[:3] == ["MODEL", "TYPE", "ENGINE"]
    assert [line.split()[:3] for line in lines] == [[name, "rerank", "rerank"] for name in names]
    assert "…" not in shown
    assert len(head) < 1000


def test_a_taken_port_leaves_no_home_behind(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = inferq("up", "--home", str(tmp_path / "home"), "--port", str(port))
    assert done.returncode != 0
    assert f"port {port} (API) is taken" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_doctor_sees_a_key_that_others_can_read(tmp_path: Path) -> None:
    (tmp_path / "admin.key").write_text("iq-x")
    (tmp_path / "admin.key").chmod(0o644)
    findings = json.loads(inferq("doctor", "--json", "--home", str(tmp_path)).stdout)
    (finding,) = (each for each in findings if each["subject"] == "permissions")
    assert (finding["level"], finding["advice"]) == ("fail", f"chmod 600 '{tmp_path / 'admin.key'}'")


def test_a_scan_needs_no_server_and_its_yaml_is_a_configuration(tmp_path: Path) -> None:
    folder = tmp_path / "models" / "mine"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"architectures": ["XForSequenceClassification"]}')
    (folder / "model.bin").write_text("weights")
    (found,) = json.loads(inferq("models", "scan", "--home", str(tmp_path), "--json").stdout)
    assert (found["id"], found["type"], found["engine"]) == ("mine", "rerank", "rerank")
    config = tmp_path / "config.yaml"
    config.write_text(inferq("models", "scan", "--home", str(tmp_path), "--yaml").stdout)
    where = ("--home", str(tmp_path), "--config", str(config))
    assert json.loads(inferq("models", "scan", *where, "--json").stdout) == []
    assert [
        each["id"] for each in json.loads(inferq("models", "scan", *where, "--all", "--json").stdout)
    ] == ["mine"]


def test_a_hook_that_is_not_installed_is_told_before_anything_starts(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("hooks: {enabled: [house-rulez]}")
    home = tmp_path / "home"
    for command in (("config", "check"), ("up", "--home", str(home), "--port", "0", "--no-flower")):
        done = inferq(*command, "--config", str(config))
        assert (done.returncode, done.stdout) == (2, "")
        assert "no hook 'house-rulez' is installed" in done.stderr
    assert not home.exists()
    findings = json.loads(inferq("doctor", "--json", "--home", str(home), "--config", str(config)).stdout)
    (finding,) = (each for each in findings if each["subject"] == "hooks")
    assert finding["level"] == "fail"
    assert "house-rulez" in finding["found"]


def test_no_command_offers_to_install_a_completion() -> None:
    assert "--install-completion" not in inferq("demo", "--help").stdout
