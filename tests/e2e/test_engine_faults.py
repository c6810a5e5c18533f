"""An engine dies: idle, while it loads, in the middle of an answer, again and again, or it only breaks off."""

from concurrent.futures import ThreadPoolExecutor

import openai
import psutil
import pytest

from tests.e2e.contract import said
from tests.e2e.stack import Stack, attempt, chat
from tests.e2e.waiting import until


def until_another(stack: Stack, model: str, before: psutil.Process) -> None:
    """The replica has started another engine, and it is ready."""
    until(
        lambda: attempt(lambda: stack.engine(model).pid != before.pid and stack.engine_health(model)),
        f"{model} has another engine",
    )
    stack.until_ready(model)


def test_killed_while_idle(stack: Stack) -> None:
    replica, engine = stack.replica("fast"), stack.engine("fast")
    engine.kill()
    until_another(stack, "fast", engine)
    assert stack.replica("fast").pid == replica.pid
    until(lambda: stack.replicas()["fast"]["restarts"] >= 1, "the restart is shown")
    assert stack.ended(stack.submit("fast"))["state"] == "succeeded"


def test_killed_while_loading(stack: Stack) -> None:
    """The job waits for the second load; it was never run by the engine that died."""
    job_id = stack.submit("lazy")
    engine = until(lambda: attempt(lambda: stack.engine("lazy")), "the engine loads")
    engine.kill()
    job = stack.ended(job_id)
    assert (job["state"], job["attempt"]) == ("succeeded", 1)
    assert stack.replicas()["lazy"]["restarts"] >= 1


@pytest.mark.parametrize("durable", [True, False])
def test_killed_before_the_answer_began(stack: Stack, durable: bool) -> None:
    """Nothing was sent, so the job is tried again, by the next engine, and not three times by the dead one."""
    engine = stack.engine("words")
    if durable:
        job_id = stack.submit("words")
        until(lambda: stack.engine_health("words")["running"] == 1, "the engine runs the job")
        engine.kill()
        job = stack.ended(job_id)
    else:
        job = interactive_killed(stack, engine)
    assert (job["state"], job["attempt"]) == ("succeeded", 2)
    until_another(stack, "words", engine)


def interactive_killed(stack: Stack, engine: psutil.Process) -> dict[str, object]:
    """The row of a call whose engine was killed while the caller waited, and got its answer all the same."""
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(stack.post, "/v1/chat/completions", chat("hello", "words"))
        until(lambda: stack.engine_health("words")["running"] == 1, "the engine runs the job")
        engine.kill()
        answer = call.result()
    assert answer.status_code == 200, answer.text
    return stack.job(answer.headers["X-Job-Id"])


def test_killed_in_the_middle_of_a_stream(stack: Stack, client: openai.OpenAI) -> None:
    """The caller has seen part of the answer: it ends with an error and is not run again."""
    engine = stack.engine("words")
    seen = []
    with (
        pytest.raises(openai.APIError) as broken,
        client.chat.completions.create(model="words", messages=said("hello"), stream=True) as stream,
    ):
        job_id = stream.response.headers["X-Job-Id"]
        for chunk in stream:
            seen.append(chunk)
            if len(seen) == 5:
                engine.kill()
    assert 5 <= len(seen) < 40
    assert broken.value.code == "engine_crashed"
    job = stack.ended(job_id)
    assert (job["state"], job["attempt"]) == ("failed", 1)
    until_another(stack, "words", engine)


def test_an_error_event_in_a_stream(stack: Stack, client: openai.OpenAI) -> None:
    """The status was 200 and the body ends cleanly; still it is no success."""
    with (
        pytest.raises(openai.APIError, match="asked to break"),
        client.chat.completions.create(model="words", messages=said("!break"), stream=True) as stream,
    ):
        job_id = stream.response.headers["X-Job-Id"]
        list(stream)
    assert stack.ended(job_id)["state"] == "failed"


def test_a_job_that_kills_its_engine_twice_is_given_up(stack: Stack) -> None:
    """Each attempt takes an engine with it; the job ends failed with an attempt left, and others go on."""
    poison = stack.submit("gate", "!crash")
    good = stack.submit("gate")
    job = stack.ended(poison)
    assert (job["state"], job["attempt"], job["error"]["code"]) == ("failed", 2, "engine_crashed")
    assert stack.ended(good)["state"] == "succeeded"
    assert stack.job(good)["attempt"] == 1


def test_the_shim_is_killed(stack: Stack) -> None:
    """Nobody is left to walk the tree, but no engine stays behind and another one comes."""
    engine = stack.engine("fast")
    shim = engine.parent()
    assert shim is not None
    assert "--lifeline-fd" in shim.cmdline()
    shim.kill()
    until(lambda: not engine.is_running(), "the engine goes with its shim")
    until_another(stack, "fast", engine)
    assert stack.ended(stack.submit("fast"))["state"] == "succeeded"


def test_the_caller_leaves_in_the_middle_of_a_stream(stack: Stack) -> None:
    with stack.http() as http:
        body = chat("!tokens=4000", "words", stream=True)
        with http.stream("POST", "/v1/chat/completions", json=body) as answer:
            job_id = answer.headers["X-Job-Id"]
            seen = answer.iter_bytes()
            next(seen)
            assert stack.engine_health("words")["running"] == 1
    until(lambda: stack.engine_health("words")["running"] == 0, "the engine stops computing")
    assert stack.ended(job_id)["state"] == "cancelled"
    until(lambda: stack.replicas()["words"]["busy"] == 0, "the slot is free")
