"""Where settings come from, which one wins, and what is said about a wrong key."""

from pathlib import Path

import pytest

from inferq import errors
from inferq.config import Settings, load_settings
from inferq.config.units import parse_duration, parse_size


@pytest.fixture
def write(tmp_path: Path):
    def write(text: str) -> Path:
        path = tmp_path / "config.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def refusal(path: Path, environ: dict[str, str] | None = None) -> str:
    with pytest.raises(errors.ConfigError) as caught:
        load_settings(path, environ=environ or {})
    return caught.value.message


def test_unknown_key_is_refused_with_the_legal_ones(write) -> None:
    message = refusal(write("api: {prot: 1}"))
    assert "unknown key api.prot (did you mean port?); legal here: host, port, workers" in message


def test_unknown_section_is_refused_with_the_legal_ones(write) -> None:
    message = refusal(write("modles: {}"))
    assert "unknown key modles (did you mean models?)" in message
    assert "directories, processing, queue" in message
    assert ", home" not in message


def test_unknown_key_of_a_model_is_refused_with_the_legal_ones(write) -> None:
    message = refusal(write("models: {m: {engine: text, source: x, slot: 3}}"))
    assert "unknown key models.m.slot (did you mean slots?)" in message


def test_every_wrong_key_is_named_at_once(write) -> None:
    message = refusal(write("api: {prot: 1, port: many}\nqueue: {lease: 0.1s}"))
    assert all(part in message for part in ("api.prot", "api.port", "queue.lease"))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("api: {ssl_enabled: true}", "ssl_enabled: TLS is documented but not built in this release"),
        ("api: {workers: 4}", "more than one api process"),
        ("security: {jwt_enabled: true}", "JWT is documented but not built"),
        ("processing: {mode: batch}", "mode: a mode other than real_time is documented but not built"),
        ("queue: {priority_levels: [high, low]}", "the lanes are fixed"),
        ("monitoring: {notification_channels: {slack: {enabled: true}}}", "Slack notification"),
    ],
)
def test_unbuilt_key_is_refused_with_the_reason(write, text: str, reason: str) -> None:
    assert reason in refusal(write(text))


def test_unbuilt_key_at_its_default_is_accepted(write) -> None:
    load_settings(write("api: {ssl_enabled: false, workers: 1}\nprocessing: {mode: real_time}"), environ={})


def test_environment_wins_over_file_and_flag_over_environment(write) -> None:
    path = write("api: {port: 9001, host: 10.0.0.1}")
    environ = {"INFERQ__API__PORT": "9002"}
    assert load_settings(path, environ={}).api.port == 9001
    assert load_settings(path, environ=environ).api.port == 9002
    flagged = load_settings(path, environ=environ, overrides={"api": {"port": 9003}})
    assert (flagged.api.port, flagged.api.host) == (9003, "10.0.0.1")


def test_environment_is_read_as_yaml() -> None:
    environ = {
        "INFERQ__MODELS__M": "{engine: text, source: x, aliases: [a, b]}",
        "INFERQ__API__ACCESS_LOG": "yes",
    }
    settings = load_settings(environ=environ)
    assert settings.models["M".lower()].aliases == ["a", "b"]
    assert settings.api.access_log is True


def test_unknown_key_in_the_environment_is_refused() -> None:
    with pytest.raises(errors.ConfigError, match=r"unknown key api\.prot"):
        load_settings(environ={"INFERQ__API__PROT": "1"})


def test_home_is_flag_then_environment_then_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_settings(environ={}).home == tmp_path / "data"
    assert load_settings(environ={"INFERQ_HOME": "here"}).home == tmp_path / "here"
    assert load_settings(home="there", environ={"INFERQ_HOME": "here"}).home == tmp_path / "there"


def test_home_is_no_key_of_the_file(write) -> None:
    assert "unknown key home; set INFERQ_HOME instead" in refusal(write("home: /tmp"))


def test_file_that_was_named_must_exist(tmp_path: Path) -> None:
    assert "cannot read" in refusal(tmp_path / "missing.yaml")


@pytest.mark.parametrize("text", ["api: [", "just text", "- a\n- b"], ids=["syntax", "scalar", "list"])
def test_file_that_is_no_mapping_is_refused(write, text: str) -> None:
    assert refusal(write(text))


def test_empty_file_means_defaults(write) -> None:
    assert load_settings(write(""), environ={}).api.port == 9000


def test_name_and_alias_may_not_clash(write) -> None:
    text = "models: {a: {engine: text, source: x}, b: {engine: text, source: x, aliases: [a]}}"
    assert "models.b.aliases: 'a' already names model 'a'" in refusal(write(text))


def test_local_queue_refuses_a_redis_url(write) -> None:
    assert "queue.redis_url" in refusal(write("queue: {type: local, redis_url: 'redis://x'}"))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("250ms", 0.25), ("30s", 30), ("5m", 300), ("2h", 7200), ("7d", 604800), (12, 12), ("1.5 s", 1.5)],
)
def test_durations(text: object, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "count"),
    [("8GiB", 8 * 2**30), ("8GB", 8 * 10**9), ("64 mb", 64_000_000), (1024, 1024), ("512", 512)],
)
def test_sizes(text: object, count: int) -> None:
    assert parse_size(text) == count


@pytest.mark.parametrize("text", ["5 weeks", "soon", "-3s", True, None, [1]])
def test_other_quantities_are_refused_with_an_example(text: object) -> None:
    with pytest.raises(ValueError, match="write it like 30s"):
        parse_duration(text)


def test_socket_folder_is_short_and_differs_between_homes(tmp_path: Path) -> None:
    long = Settings(home=tmp_path / ("x" * 200))
    other = Settings(home=tmp_path)
    assert len(str(long.run_dir / "redis.sock")) < 108
    assert long.run_dir != other.run_dir


@pytest.mark.parametrize("text", ["off", "'off'", "public", "listed"])
def test_fetch_is_off_however_yaml_reads_it(write, text: str) -> None:
    assert load_settings(write(f"media: {{fetch: {text}}}"), environ={}).media.fetch == text.strip("'")


def test_allowed_hosts_are_kept_in_one_spelling(write) -> None:
    hosts = "[Files.Example., 10.1.0.0/16, 127.0.0.1, '::1']"
    found = load_settings(write(f"media: {{allow_hosts: {hosts}}}"), environ={}).media.allow_hosts
    assert found == ["files.example", "10.1.0.0/16", "127.0.0.1/32", "::1/128"]


@pytest.mark.parametrize(
    "host", ["10.1.0.1/16", "https://x", "x:80", "*.example", "1.2.3", "", "a b", "10.0.0.0/40"]
)
def test_what_is_no_host_is_refused(write, host: str) -> None:
    assert "no host name, address or network" in refusal(write(f"media: {{allow_hosts: ['{host}']}}"))


def test_a_link_secret_is_long(write) -> None:
    assert "security.link_secret" in refusal(write("security: {link_secret: short}"))
