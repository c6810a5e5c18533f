"""Bringing models here: whole, checked, resumed, and nothing half done is ever seen."""

import json
import os
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.engines import hub as hubs
from tests.engines import process
from tests.engines.hub import COMMIT, Hub, sha256
from tests.engines.process import EngineProcess, eventually, running

PULL = "/v1/models/pull"
REPO = "acme/tiny"
WEIGHTS = os.urandom(3 * 2**20 + 17)
FILES = {
    "config.json": b'{"architectures": ["TinyForCausalLM"]}',
    "model.safetensors": WEIGHTS,
    "sub/empty.txt": b"",
}
Start = Callable[..., AbstractContextManager[EngineProcess]]


@pytest.fixture
def hub() -> Iterator[Hub]:
    with hubs.serving({REPO: dict(FILES)}) as serving:
        yield serving


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return tmp_path / "models"


@pytest.fixture
def start(hub: Hub, models: Path, short_dir: Path) -> Start:
    """An engine for this hub; more options by keyword."""

    def started(**options: Any) -> AbstractContextManager[EngineProcess]:
        bases = {"huggingface": hub.url, "modelscope": hub.url, "pause_s": 0.02, "reserve_bytes": 0}
        return running("pull", short_dir, str(models), options=bases | options)

    return started


@pytest.fixture
def engine(start: Start) -> Iterator[EngineProcess]:
    with start() as engine:
        yield engine


def pulled(engine: EngineProcess, **body: Any) -> dict[str, Any]:
    response = engine.post(PULL, {"source": REPO, **body})
    assert response.status_code == 200, response.text
    return dict(response.json())


def refused(response: httpx2.Response, status: int = 422) -> str:
    assert response.status_code == status, response.text
    return str(response.json()["error"]["code"])


def held(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".inferq-pull.json"
    }


def visible(models: Path) -> list[str]:
    return sorted(path.name for path in models.iterdir() if not path.name.startswith("."))


@pytest.mark.parametrize("source", [REPO, f"hf:{REPO}", f"modelscope:{REPO}"])
def test_a_hub_model_arrives_whole(engine: EngineProcess, models: Path, source: str) -> None:
    answer = pulled(engine, source=source)
    assert held(models / "tiny") == FILES
    assert (answer["name"], answer["files"], answer["bytes"]) == ("tiny", 3, sum(map(len, FILES.values())))
    assert answer["revision"] == (None if "modelscope" in source else COMMIT)
    manifest = json.loads((models / "tiny" / ".inferq-pull.json").read_text())
    assert manifest["files"]["model.safetensors"]["sha256"] == sha256(WEIGHTS)
    assert not list((models / ".pull").glob("*/"))


def test_a_model_that_is_there_is_left_alone(engine: EngineProcess, hub: Hub, models: Path) -> None:
    pulled(engine)
    before, came = (models / "tiny" / "model.safetensors").stat(), hub.downloads()
    again = pulled(engine)
    assert (again["unchanged"], again["fetched_bytes"], hub.downloads()) == (True, 0, came)
    assert (models / "tiny" / "model.safetensors").stat() == before


def test_files_that_somebody_put_there_are_checked_not_fetched(
    engine: EngineProcess, hub: Hub, models: Path
) -> None:
    for path, data in FILES.items():
        (models / "tiny" / path).parent.mkdir(parents=True, exist_ok=True)
        (models / "tiny" / path).write_bytes(data)
    assert pulled(engine)["unchanged"]
    assert hub.downloads() == 0
    (models / "tiny" / "model.safetensors").write_bytes(bytes(len(WEIGHTS)))
    assert refused(engine.post(PULL, {"source": REPO})) == "name_taken"


def test_an_update_fetches_only_what_changed(engine: EngineProcess, hub: Hub, models: Path) -> None:
    pulled(engine)
    hub.files[REPO]["config.json"] = b'{"architectures": ["OtherForCausalLM"]}'
    hub.served.clear()
    assert not pulled(engine)["unchanged"]
    assert held(models / "tiny") == hub.files[REPO]
    assert set(hub.served) == {"config.json"}


def test_only_some_files(engine: EngineProcess, models: Path) -> None:
    pulled(engine, include=["*.json", "*.txt"], exclude=["sub/*"], name="part")
    assert set(held(models / "part")) == {"config.json"}
    pulled(engine, files=["sub/empty.txt"], name="one")
    assert set(held(models / "one")) == {"sub/empty.txt"}
    assert (
        refused(engine.post(PULL, {"source": REPO, "files": ["absent"], "name": "two"})) == "source_not_found"
    )


def test_a_cut_connection_is_taken_up_where_it_broke(engine: EngineProcess, hub: Hub, models: Path) -> None:
    hub.cut_after = 2**20
    answer = pulled(engine)
    assert held(models / "tiny") == FILES
    assert answer["fetched_bytes"] <= hub.downloads()
    # Of each break less than a megabyte is lost on its way through the buffers.
    assert len(WEIGHTS) <= hub.served["model.safetensors"] < 2 * len(WEIGHTS)
    assert any("range" in headers for _, _, headers in hub.requests)


def test_a_server_without_ranges_is_read_from_the_start_again(
    engine: EngineProcess, hub: Hub, models: Path
) -> None:
    hub.cut_after, hub.cuts, hub.ranges = 2**20, 1, False
    pulled(engine)
    assert held(models / "tiny") == FILES
    assert hub.served["model.safetensors"] > len(WEIGHTS)


def test_a_server_that_always_breaks_off_and_never_continues_is_given_up(
    engine: EngineProcess, hub: Hub
) -> None:
    hub.cut_after, hub.cut_later, hub.ranges = 2**18, 2**16, False
    assert refused(engine.post(PULL, {"source": REPO}), 503) == "hub_unreachable"
    assert hub.downloads() < 2 * len(WEIGHTS)


@pytest.mark.parametrize("status", [429, 503])
def test_passing_troubles_are_waited_for(engine: EngineProcess, hub: Hub, models: Path, status: int) -> None:
    hub.status, hub.failures = status, 4
    pulled(engine)
    assert held(models / "tiny") == FILES


def test_lasting_troubles_are_the_queues(engine: EngineProcess, hub: Hub, models: Path) -> None:
    hub.status = 503
    assert refused(engine.post(PULL, {"source": REPO}), 503) == "hub_unreachable"
    assert visible(models) == []


def test_a_hub_that_is_not_there_is_named_with_what_helps(start: Start, models: Path) -> None:
    with socket.socket() as closed:
        # Bound and not listening: whoever connects is refused.
        closed.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{closed.getsockname()[1]}"
        with start(huggingface=address, modelscope=address) as engine:
            for source, setting in (
                (REPO, "hub.huggingface"),
                (f"modelscope:{REPO}", "hub.modelscope"),
            ):
                response = engine.post(PULL, {"source": source})
                message = response.json()["error"]["message"]
                assert refused(response, 503) == "hub_unreachable"
                assert address in message
                assert setting in message
    assert not (models / "tiny").exists()


def test_a_killed_engine_goes_on_where_it_was(start: Start, hub: Hub, models: Path) -> None:
    hub.pause_s = 0.02
    with start() as engine, engine.sent(PULL, {"source": REPO}, "killed"):
        eventually(lambda: hub.served["model.safetensors"] > 2**20, "half of it has come")
        engine.process.kill()
        engine.process.wait()
    assert visible(models) == []
    hub.pause_s = 0
    with start() as engine:
        pulled(engine)
    assert held(models / "tiny") == FILES
    assert len(WEIGHTS) <= hub.served["model.safetensors"] < 1.7 * len(WEIGHTS)


def test_a_caller_who_leaves_ends_the_download(engine: EngineProcess, hub: Hub, models: Path) -> None:
    hub.pause_s = 0.05
    with engine.sent(PULL, {"source": REPO}, "left"):
        eventually(lambda: hub.served["model.safetensors"] > 2**18, "some of it has come")
        (run,) = engine.get("/runs").json()["runs"]
        assert run["total"] == sum(map(len, FILES.values()))
        assert 0 < run["done"] < run["total"]
    eventually(lambda: not engine.running(), "released", 1.0)
    came = hub.served["model.safetensors"]
    hub.pause_s = 0
    pulled(engine)
    assert held(models / "tiny") == FILES
    assert hub.served["model.safetensors"] - came < len(WEIGHTS)


@pytest.mark.parametrize("head", [True, False])
def test_another_version_is_not_joined_to_what_is_there(
    start: Start, hub: Hub, models: Path, head: bool
) -> None:
    """No checksum is known, so the server's tag must tell: before the download, or in its answer."""
    hub.head = head
    url = f"{hub.url}/plain/{REPO}/model.safetensors"
    host = hub.url.removeprefix("http://")
    hub.cut_after, hub.cuts, hub.pause_s = 2**20, 1, 0.0
    with start(allow_hosts=[host], pause_s=60.0) as engine, engine.sent(PULL, {"source": url}, "cut"):
        eventually(lambda: hub.cuts == 0, "it is cut")
        eventually(
            lambda: any(part.stat().st_size > 2**16 for part in models.glob(".pull/*/parts/*")), "a part"
        )
    hub.files[REPO]["model.safetensors"], hub.etag = bytes(len(WEIGHTS)), '"two"'
    with start(allow_hosts=[host]) as engine:
        pulled(engine, source=url)
    assert held(models / "model.safetensors") == {"model.safetensors": bytes(len(WEIGHTS))}


def test_a_wrong_checksum_is_final_and_nothing_is_seen(engine: EngineProcess, hub: Hub, models: Path) -> None:
    hub.corrupt = True
    response = engine.post(PULL, {"source": REPO, "files": ["model.safetensors"]})
    assert refused(response) == "checksum_mismatch"
    assert "SHA-256" in response.json()["error"]["message"]
    assert visible(models) == []
    hub.corrupt = False
    pulled(engine)
    assert held(models / "tiny") == FILES


def test_a_small_file_is_checked_by_its_blob_id(engine: EngineProcess, hub: Hub) -> None:
    hub.corrupt = True
    response = engine.post(PULL, {"source": REPO, "files": ["config.json"]})
    assert refused(response) == "checksum_mismatch"
    assert "blob" in response.json()["error"]["message"]


def test_a_part_that_was_damaged_is_fetched_once_more(engine: EngineProcess, hub: Hub, models: Path) -> None:
    hub.pause_s = 0.05
    with engine.sent(PULL, {"source": REPO}, "left"):
        eventually(lambda: hub.served["model.safetensors"] > 2**18, "some of it has come")
    eventually(lambda: not engine.running(), "released")
    hub.pause_s = 0
    for part in (models / ".pull").glob("tiny/parts/*"):
        if part.stat().st_size > 1000:
            part.write_bytes(b"?" + part.read_bytes()[1:])
    pulled(engine)
    assert held(models / "tiny") == FILES


@pytest.mark.parametrize("given", [sha256(b"other"), {"model.safetensors": sha256(b"other")}])
def test_a_callers_checksum_must_agree(engine: EngineProcess, models: Path, given: Any) -> None:
    body = {"source": REPO, "files": ["model.safetensors"], "sha256": given}
    assert refused(engine.post(PULL, body)) == "checksum_mismatch"


@pytest.mark.parametrize(
    "path",
    [
        "../evil",
        "/etc/evil",
        "a/../../evil",
        "a\\..\\evil",
        "a//b",
        "",
        "a\nb",
        ".inferq-pull.json",
        "x" * 300,
    ],
)
@pytest.mark.parametrize("source", [REPO, f"modelscope:{REPO}"])
def test_a_path_that_leaves_the_folder_refuses_it_all(
    engine: EngineProcess, hub: Hub, models: Path, path: str, source: str
) -> None:
    hub.paths["config.json"] = path
    assert refused(engine.post(PULL, {"source": source})) == "hub_error"
    assert hub.downloads() == 0
    assert not list(models.parent.rglob("*evil*"))


def test_one_path_twice_is_refused(engine: EngineProcess, hub: Hub) -> None:
    hub.paths["config.json"] = "sub"
    assert refused(engine.post(PULL, {"source": REPO})) == "hub_error"


def test_a_size_that_is_not_kept_is_refused(engine: EngineProcess, hub: Hub, models: Path) -> None:
    hub.sizes["model.safetensors"] = 100
    assert refused(engine.post(PULL, {"source": REPO})) == "size_mismatch"
    assert visible(models) == []


def test_an_endless_body_ends(engine: EngineProcess, hub: Hub, models: Path) -> None:
    hub.endless = True
    assert refused(engine.post(PULL, {"source": REPO, "files": ["model.safetensors"]})) == "size_mismatch"
    assert hub.downloads() < 10 * len(WEIGHTS)


def test_an_endless_body_of_unknown_size_ends_too(start: Start, hub: Hub, models: Path) -> None:
    hub.endless = True
    url, host = f"{hub.url}/plain/{REPO}/model.safetensors", hub.url.removeprefix("http://")
    with start(allow_hosts=[host], max_bytes=2**22) as engine:
        assert refused(engine.post(PULL, {"source": url})) == "too_large"
    assert visible(models) == []


def test_many_files_of_unknown_size_are_bounded_together(start: Start, hub: Hub, models: Path) -> None:
    """Each is small enough; the listing does not say how large they are."""
    hub.files[REPO] = {f"{number}.bin": os.urandom(2**18) for number in range(16)}
    hub.sizes = dict.fromkeys(hub.files[REPO])
    with start(max_bytes=2**20, connections=1) as engine:
        assert refused(engine.post(PULL, {"source": REPO})) == "too_large"
    assert 2**19 < hub.downloads() < 2**21
    assert not list((models / ".pull").glob("*/"))


def test_many_files_of_unknown_size_leave_the_reserve(start: Start, hub: Hub, models: Path) -> None:
    hub.files[REPO] = {f"{number}.bin": os.urandom(2**18) for number in range(16)}
    hub.sizes = dict.fromkeys(hub.files[REPO])
    with start(reserve_bytes=2**60, connections=1) as engine:
        assert refused(engine.post(PULL, {"source": REPO})) == "disk_full"
    assert hub.downloads() < 2**20
    assert visible(models) == []


def test_a_name_that_ends_like_a_lock_is_a_name(engine: EngineProcess, models: Path) -> None:
    for name in ("x", "x.lock", "x"):
        pulled(engine, name=name)
    assert visible(models) == ["x", "x.lock"]


def test_a_redirect_to_what_is_no_url_is_told(engine: EngineProcess, hub: Hub) -> None:
    hub.redirect = "https://127.0.0.1:99999/{path}"
    assert refused(engine.post(PULL, {"source": REPO})) == "hub_error"


def test_a_hub_whose_address_is_none_is_told(start: Start) -> None:
    with start(huggingface="https://hub:99999") as engine:
        assert refused(engine.post(PULL, {"source": REPO})) == "hub_error"


def test_a_silent_server_is_left(start: Start, hub: Hub) -> None:
    hub.silent_s = 5.0
    with start(stall_s=0.1, pause_s=0.001) as engine:
        assert refused(engine.post(PULL, {"source": REPO}), 503) == "hub_unreachable"


def test_a_redirect_to_a_public_hub_may_not_lead_inside(
    engine: EngineProcess, hub: Hub, models: Path
) -> None:
    with hubs.serving({REPO: FILES}) as inside:
        hub.redirect = inside.url + "/plain/" + REPO + "/{path}"
        assert refused(engine.post(PULL, {"source": REPO})) == "address_refused"
        hub.redirect = hub.redirect.replace("http://", "https://")
        assert refused(engine.post(PULL, {"source": REPO})) == "address_refused"
        hub.redirect = hub.redirect.replace("127.0.0.1", "localhost")
        assert refused(engine.post(PULL, {"source": REPO})) == "address_refused"
        assert inside.requests == []


@pytest.mark.parametrize(
    ("source", "variable", "cookie"),
    [(REPO, "HF_TOKEN", None), (f"modelscope:{REPO}", "MODELSCOPE_API_TOKEN", "m_session_id=secret")],
)
def test_a_token_goes_to_its_hub_alone(
    start: Start,
    hub: Hub,
    models: Path,
    monkeypatch: pytest.MonkeyPatch,
    source: str,
    variable: str,
    cookie: str | None,
) -> None:
    monkeypatch.setitem(process.ENVIRONMENT, variable, "secret")
    with hubs.serving({REPO: FILES}) as elsewhere:
        hub.redirect = elsewhere.url + "/plain/" + REPO + "/{path}"
        with start(allow_hosts=[elsewhere.url.removeprefix("http://")]) as engine:
            pulled(engine, source=source)
        assert held(models / "tiny") == FILES
        assert {headers.get("authorization") for _, _, headers in hub.requests} == {"Bearer secret"}
        assert {headers.get("cookie") for _, _, headers in hub.requests} == {cookie}
        assert not any({"authorization", "cookie"} & set(headers) for _, _, headers in elsewhere.requests)


def test_a_private_url_is_refused_unless_listed(start: Start, hub: Hub, models: Path) -> None:
    url = f"{hub.url}/plain/{REPO}/model.safetensors"
    with start() as engine:
        assert refused(engine.post(PULL, {"source": url.replace("127.0.0.1", "[::1]")})) == "address_refused"
        other = "https://127.0.0.1:9/model.safetensors"
        assert refused(engine.post(PULL, {"source": other})) == "address_refused"
    with start(allow_hosts=["127.0.0.1"]) as engine:
        pulled(engine, source=url, sha256=sha256(WEIGHTS))
    assert held(models / "model.safetensors") == {"model.safetensors": WEIGHTS}


def test_a_gated_model_says_which_variable_to_set(engine: EngineProcess, hub: Hub) -> None:
    hub.status = 401
    response = engine.post(PULL, {"source": REPO})
    assert refused(response) == "hub_forbidden"
    assert "HF_TOKEN" in response.json()["error"]["message"]


def test_what_is_not_there(engine: EngineProcess) -> None:
    assert refused(engine.post(PULL, {"source": "acme/none"})) == "source_not_found"
    assert refused(engine.post(PULL, {"source": "/nowhere/at/all"})) == "source_not_found"


def test_a_hub_without_an_address_says_what_to_set(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(process.ENVIRONMENT, "HF_ENDPOINT", "")
    with start(huggingface="", pythons=["/nowhere/python"]) as engine:
        response = engine.post(PULL, {"source": REPO})
    assert refused(response) == "hub_unknown"
    assert "HF_ENDPOINT" in response.json()["error"]["message"]


def test_the_variable_names_the_hub(
    start: Start, hub: Hub, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(process.ENVIRONMENT, "HF_ENDPOINT", hub.url)
    with start(huggingface="") as engine:
        pulled(engine)
    assert held(models / "tiny") == FILES


def test_a_folder_is_copied(engine: EngineProcess, models: Path, tmp_path: Path) -> None:
    folder = tmp_path / "there" / "mine"
    (folder / ".cache").mkdir(parents=True)
    (folder / ".cache" / "x").write_bytes(b"hidden")
    (folder / "big.bin").write_bytes(WEIGHTS)
    (folder / "link.bin").symlink_to(folder / "big.bin")
    os.mkfifo(folder / "pipe")
    for source in (str(folder), folder.as_uri()):
        answer = pulled(engine, source=source)
    assert held(models / "mine") == {"big.bin": WEIGHTS, "link.bin": WEIGHTS}
    assert answer["unchanged"]


def test_no_room_is_said_before_anything_is_fetched(start: Start, hub: Hub, models: Path) -> None:
    with start(reserve_bytes=2**60) as engine:
        assert refused(engine.post(PULL, {"source": REPO})) == "disk_full"
    assert hub.downloads() == 0
    assert visible(models) == []
    assert not list((models / ".pull").glob("*/"))


def test_a_disk_that_fills_up_is_said_and_freed(engine: EngineProcess, hub: Hub, models: Path) -> None:
    """No file may grow beyond a megabyte, which to a program is the same as a full disk."""
    resource.prlimit(engine.process.pid, resource.RLIMIT_FSIZE, (2**20, 2**20))
    assert refused(engine.post(PULL, {"source": REPO})) == "disk_full"
    assert visible(models) == []
    assert not list((models / ".pull").glob("*/"))
    assert engine.health()["status"] == "ready"


def test_a_signature_in_a_url_is_not_written_down(start: Start, hub: Hub, models: Path) -> None:
    url = f"{hub.url}/plain/{REPO}/model.safetensors?signature=secret"
    with start(allow_hosts=["127.0.0.1"]) as engine:
        answer = pulled(engine, source=url)
    assert "secret" not in json.dumps(answer)
    assert "secret" not in (models / "model.safetensors" / ".inferq-pull.json").read_text()


def test_what_nobody_took_up_for_a_week_is_removed(start: Start, models: Path) -> None:
    for name, age in (("old", 8 * 86400), ("young", 6 * 86400)):
        part = models / ".pull" / name / "parts" / "x"
        part.parent.mkdir(parents=True)
        part.write_bytes(b"x")
        for path in (part, part.parent):
            os.utime(path, (time.time() - age,) * 2)
    with start():
        assert not (models / ".pull" / "old").exists()
        assert (models / ".pull" / "young").exists()


def test_two_pulls_of_one_name_wait_for_each_other(engine: EngineProcess, hub: Hub, models: Path) -> None:
    hub.pause_s = 0.01
    answers: list[dict[str, Any]] = []
    threads = [threading.Thread(target=lambda: answers.append(pulled(engine))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answer["unchanged"] for answer in answers) == [False, True]
    assert hub.served["model.safetensors"] == len(WEIGHTS)
    assert held(models / "tiny") == FILES


def test_another_source_does_not_take_a_name(engine: EngineProcess, hub: Hub, models: Path) -> None:
    pulled(engine)
    hub.files["other/tiny"] = {"config.json": b"{}"}
    assert refused(engine.post(PULL, {"source": "other/tiny"})) == "name_taken"
    assert held(models / "tiny") == FILES


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "source"),
        ({"source": 7}, "source"),
        ({"source": "x"}, "source"),
        ({"source": "ftp://host/x"}, "source"),
        ({"source": "https://user:word@host/x"}, "source"),
        ({"source": "https://host:99999/x"}, "source"),
        ({"source": "/a/../b"}, "source"),
        ({"source": REPO, "name": "../x"}, "name"),
        ({"source": REPO, "name": ".pull"}, "name"),
        ({"source": REPO, "name": "a/b"}, "name"),
        ({"source": "https://host/"}, "name"),
        ({"source": REPO, "revision": "../../x"}, "revision"),
        ({"source": REPO, "sha256": "zz"}, "sha256"),
        ({"source": REPO, "sha256": {"a": 1}}, "sha256"),
        ({"source": REPO, "include": "x"}, "include"),
        ({"source": REPO, "exclude": [1]}, "exclude"),
        ({"source": REPO, "fancy": 1}, "fancy"),
    ],
    ids=partial(str),
)
def test_wrong_requests_name_their_field(engine: EngineProcess, body: dict[str, Any], param: str) -> None:
    response = engine.post(PULL, body)
    assert response.status_code == 400, response.text
    assert response.json()["error"]["param"] == param
