"""What the ComfyUI engine says of workflows and options: refused at load, or used as written."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from inferq.config.settings import ModelSettings
from tests.engines import comfyui_nodes
from tests.engines.comfyui_bench import EXAMPLE, Comfy, bench, example_options
from tests.engines.process import EngineProcess, running, spawn
from workers.engines.comfy.workflow import checked_graph

PATH = "/v1/images/generations"
SMALL: dict[str, Any] = {"prompt": "a lighthouse", "size": "64x64", "steps": 2}
EDITOR = {"nodes": [{"id": 1, "type": "KSampler"}], "links": [], "version": 0.4}


@pytest.fixture(scope="module")
def comfy() -> Iterator[Comfy]:
    with bench() as found:
        yield found
        if found.double:
            assert found.double.violations == []


def ended(engine: EngineProcess) -> tuple[int, str]:
    words = engine.process.communicate(timeout=30)[1]
    return engine.process.returncode, words.splitlines()[-1]


def with_node(comfy: Comfy, **nodes: Any) -> dict[str, Any]:
    return comfy.graph() | nodes


def test_the_example_is_a_model(comfy: Comfy, socket_dir: Path, tmp_path: Path) -> None:
    """As the configuration has it: a folder as the source, and a file in it."""
    models = yaml.safe_load((EXAMPLE / "config.yaml").read_text())["models"]
    assert ModelSettings.model_validate(models["sd15-comfy"]).engine == "comfyui"
    options = example_options()
    assert (EXAMPLE / options["workflow"]).is_file()
    (tmp_path / options["workflow"]).write_text(json.dumps(comfy.graph()))
    options |= {"url": comfy.url, "max_pixels": 1048576, "max_steps": 50, "max_images": 4}
    with running("comfyui", socket_dir, str(tmp_path), options=options) as engine:
        assert engine.post(PATH, SMALL).status_code == 200
        assert engine.post(PATH, SMALL | {"steps": 51}).json()["error"]["param"] == "steps"
        assert engine.post(PATH, SMALL | {"n": 5}).json()["error"]["param"] == "n"
        assert engine.post(PATH, SMALL | {"size": "1032x1024"}).json()["error"]["param"] == "size"


def test_the_source_may_be_the_address(comfy: Comfy, socket_dir: Path) -> None:
    options = comfy.options()
    del options["url"]
    with running("comfyui", socket_dir, comfy.url + "/", options=options) as engine:
        assert engine.post(PATH, SMALL).status_code == 200


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"workflow": EDITOR}, "Workflow > Export (API)"),
        ({"workflow": {"1": {"class_type": "KSampler"}}}, "node 1 has no inputs"),
        ({"workflow": {"1": {"inputs": {}}}}, "node 1 has no class_type"),
        ({"workflow": "absent.json"}, "absent.json"),
        ({"parameters": {"prompt": "Nobody.text"}}, "no nodes of the workflow have the id or title 'Nobody'"),
        ({"parameters": {"prompt": "Prompt.words"}}, "CLIPTextEncode has no input 'words', but text, clip"),
        ({"parameters": {"prompt": "text"}}, "no nodes"),
        ({"parameters": {"prompt": {"node": "Prompt"}}}, "must be 'node.input'"),
        ({"parameters": {"prompt": {"node": "Prompt", "input": "text", "type": 1}}}, "unknown keys: type"),
        ({"parameters": {"workflow": "Prompt.text"}}, "cannot be the name of a parameter"),
        ({"parameters": {"steps": {"node": "Sampler", "input": "steps", "default": 0}}}, "default"),
        (
            {"parameters": {"scheduler": {"node": "Sampler", "input": "scheduler", "enum": ["x"]}}},
            "not know x",
        ),
        ({"outputs": ["Nowhere"]}, "'outputs'"),
    ],
)
def test_what_is_wrong_with_a_workflow_is_said_at_load(
    comfy: Comfy, socket_dir: Path, change: dict[str, Any], words: str
) -> None:
    with spawn("comfyui", socket_dir, options=comfy.options(**change)) as engine:
        status, said = ended(engine)
    assert (status, words in said) == (3, True), said


def test_a_file_that_is_no_json_is_named(comfy: Comfy, socket_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.json").write_text("{")
    with spawn("comfyui", socket_dir, str(tmp_path), options=comfy.options(workflow="broken.json")) as engine:
        status, said = ended(engine)
    assert (status, "broken.json is not JSON" in said) == (3, True)


def test_missing_nodes_are_listed(comfy: Comfy, socket_dir: Path) -> None:
    nodes = {name: {"class_type": f"Fancy{name}", "inputs": {}} for name in ("b", "a", "c")}
    with spawn("comfyui", socket_dir, options=comfy.options(workflow=with_node(comfy, **nodes))) as engine:
        status, said = ended(engine)
    assert (status, "no node class Fancya, Fancyb, Fancyc" in said) == (3, True), said


def test_a_model_that_the_server_does_not_have_is_named(comfy: Comfy, socket_dir: Path) -> None:
    graph = comfy.graph()
    graph["ckpt"]["inputs"]["ckpt_name"] = "absent.safetensors"
    with spawn("comfyui", socket_dir, options=comfy.options(workflow=graph)) as engine:
        status, said = ended(engine)
    assert (status, "'absent.safetensors' for ckpt_name of the workflow's node ckpt" in said) == (3, True), (
        said
    )
    assert comfy.checkpoint in said


def test_a_link_to_nowhere_is_found(comfy: Comfy, socket_dir: Path) -> None:
    graph = with_node(comfy, bad={"class_type": "PreviewImage", "inputs": {"images": ["77", 0]}})
    with spawn("comfyui", socket_dir, options=comfy.options(workflow=graph)) as engine:
        status, said = ended(engine)
    assert (status, "node bad links images to node 77" in said) == (3, True), said


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"url": ""}, "url"),
        ({"url": "ftp://host"}, "url"),
        ({"url": "http://me:hunter2@host"}, "url"),
        ({"workflow": ""}, "workflow"),
        ({"timeout_s": 0}, "timeout_s"),
        ({"parameters": []}, "parameters"),
        ({"prompt_id": "x"}, "prompt_id"),
    ],
)
def test_wrong_options_end_it_with_a_reason(
    comfy: Comfy, socket_dir: Path, change: dict[str, Any], words: str
) -> None:
    with spawn("comfyui", socket_dir, options=comfy.options(**change)) as engine:
        status, said = ended(engine)
    assert (status, words in said, "hunter2" in said) == (2, True, False)


def test_a_relative_workflow_needs_a_folder(comfy: Comfy, socket_dir: Path) -> None:
    options = comfy.options(workflow="flow.json")
    del options["url"]
    with spawn("comfyui", socket_dir, comfy.url, options=options) as engine:
        status, said = ended(engine)
    assert (status, "absolute path" in said) == (2, True)


def test_lists_are_wrapped_and_titles_found(comfy: Comfy, socket_dir: Path) -> None:
    """A list in a node's input is a link, unless it is wrapped; also one that a caller gives."""
    double = comfy.faulty()
    texts = {
        "class_type": "JoinTexts",
        "inputs": {"texts": ["sampler", "in", "fog"]},
        "_meta": {"title": "A.b c"},
    }
    graph = with_node(comfy, texts=texts)
    graph["negative"]["inputs"]["text"] = ["texts", 0]
    parameters = {"prompt": "Prompt.text", "texts": "A.b c.texts", "seed": "Sampler.seed"}
    options = {"url": comfy.url, "workflow": graph, "parameters": parameters}
    with running("comfyui", socket_dir, options=options) as engine:
        assert engine.post(PATH, {"prompt": "a"}).status_code == 200
        assert double.graphs[-1]["texts"]["inputs"]["texts"] == {"__value__": ["sampler", "in", "fog"]}
        assert double.graphs[-1]["negative"]["inputs"]["text"] == ["texts", 0]
        assert engine.post(PATH, {"prompt": "a", "texts": ["ckpt", 0]}).status_code == 502  # not two texts
        assert double.graphs[-1]["texts"]["inputs"]["texts"] == {"__value__": ["ckpt", 0]}
        nested = engine.post(PATH, {"prompt": "a", "texts": [["ckpt", 0]]})
        assert (nested.status_code, nested.json()["error"]["param"]) == (400, "texts")


def test_seeds_that_nobody_mapped_are_set_all_the_same(comfy: Comfy, socket_dir: Path) -> None:
    options = comfy.options(
        parameters={"prompt": "Prompt.text", "width": "Size.width", "height": "Size.height"}
    )
    with running("comfyui", socket_dir, options=options) as engine:
        body = {"prompt": "a", "size": "64x64"}
        answers = [engine.post(PATH, body | more).json()["data"][0] for more in ({}, {}, {"seed": 9})]
        again = engine.post(PATH, body | {"seed": answers[0]["seed"]}).json()["data"][0]
        assert engine.post(PATH, body | {"n": 1}).status_code == 200
        assert engine.post(PATH, body | {"n": 2}).json()["error"]["param"] == "n"
    assert answers[0]["seed"] != answers[1]["seed"]
    assert answers[2]["seed"] == 9
    assert again == answers[0]


def test_one_field_may_go_to_several_inputs(comfy: Comfy, socket_dir: Path) -> None:
    second = {**comfy.graph()["sampler"]}
    second["inputs"] = second["inputs"] | {"latent_image": ["sampler", 0]}
    double = comfy.faulty()
    graph = with_node(comfy, second=second)
    parameters = {"prompt": "Prompt.text", "seed": ["sampler.seed", "second.seed"]}
    parameters |= {"steps": ["sampler.steps", "second.steps"], "width": "Size.width", "height": "Size.height"}
    with running(
        "comfyui", socket_dir, options={"url": comfy.url, "workflow": graph, "parameters": parameters}
    ) as engine:
        assert engine.post(PATH, SMALL | {"seed": 3}).status_code == 200
    made = double.graphs[-1]
    assert [made[name]["inputs"]["seed"] for name in ("sampler", "second")] == [3, 3]
    assert [made[name]["inputs"]["steps"] for name in ("sampler", "second")] == [2, 2]


def previewed(comfy: Comfy) -> dict[str, Any]:
    return with_node(comfy, look={"class_type": "PreviewImage", "inputs": {"images": ["decode", 0]}})


@pytest.mark.parametrize(("outputs", "count"), [([], 1), (["look"], 1), (["look", "Save"], 2)])
def test_outputs_are_the_saved_pictures_or_those_named(
    comfy: Comfy, socket_dir: Path, outputs: list[str], count: int
) -> None:
    options = comfy.options(workflow=previewed(comfy), outputs=outputs)
    with running("comfyui", socket_dir, options=options) as engine:
        assert len(engine.post(PATH, SMALL).json()["data"]) == count


def test_a_workflow_that_only_previews_gives_its_preview(comfy: Comfy, socket_dir: Path) -> None:
    graph = previewed(comfy)
    del graph["save"]
    with running("comfyui", socket_dir, options=comfy.options(workflow=graph, outputs=[])) as engine:
        assert len(engine.post(PATH, SMALL).json()["data"]) == 1


def test_a_workflow_whose_one_output_is_bad_is_not_run_for_the_other(comfy: Comfy, socket_dir: Path) -> None:
    """ComfyUI queues the good output and answers 200 with the errors of the other."""
    graph = previewed(comfy)
    graph["look"]["inputs"] = {}
    with running("comfyui", socket_dir, options=comfy.options(workflow=graph)) as engine:
        answer = engine.post(PATH, SMALL | {"steps": 100})
        error = answer.json()["error"]
        assert (answer.status_code, error["code"]) == (502, "comfyui_invalid_workflow")
        assert "node look (PreviewImage): Required input is missing: images" in error["message"]
        assert comfy.ask("GET", "/queue") == {"queue_running": [], "queue_pending": []}


def test_a_fault_of_the_template_is_ours_and_one_of_a_value_the_callers(
    comfy: Comfy, socket_dir: Path
) -> None:
    graph = comfy.graph(cfg=1000.0)
    options = comfy.options(workflow=graph)
    del options["parameters"]["guidance_scale"]
    with running("comfyui", socket_dir, options=options) as engine:
        answer = engine.post(PATH, SMALL)
        assert (answer.status_code, "bigger than max" in answer.json()["error"]["message"]) == (502, True)
    # The engine knew a sampler that the server has lost since.
    double = comfy.faulty()
    with running("comfyui", socket_dir, options=comfy.options()) as engine:
        comfyui_nodes.SAMPLERS.remove("ddim")
        try:
            answer = engine.post(PATH, SMALL | {"scheduler": "ddim"})
        finally:
            comfyui_nodes.SAMPLERS.append("ddim")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "scheduler")
    assert "'euler'" in answer.json()["error"]["message"]
    assert not double.violations


def test_pictures_of_controlnets_have_names_of_their_own(
    comfy: Comfy, socket_dir: Path, tmp_path: Path
) -> None:
    load = {"class_type": "LoadImage", "inputs": {"image": "example.png"}, "_meta": {"title": "Hint"}}
    look = {"class_type": "PreviewImage", "inputs": {"images": ["hint", 0]}}
    parameters = example_options()["parameters"] | {
        "controlnet_units[0].input_image": {
            "node": "Hint",
            "input": "image",
            "upload": "image",
            "default": "example.png",
        },
        "controlnet_units[0].weight": "Sampler.denoise",
    }
    options = comfy.options(workflow=with_node(comfy, hint=load, look=look), parameters=parameters)
    Image.new("RGB", (32, 16), "blue").save(tmp_path / "hint.png")
    unit = {"input_image": (tmp_path / "hint.png").as_uri(), "weight": 0.5}
    with running("comfyui", socket_dir, options=options, media=tmp_path) as engine:
        assert engine.post(PATH, SMALL | {"controlnet_units": [unit]}).status_code == 200
        graph = comfy.faulty().graphs[-1]
        assert graph["hint"]["inputs"]["image"].startswith("inferq/")
        assert graph["sampler"]["inputs"]["denoise"] == 0.5
        assert engine.post(PATH, SMALL).status_code == 200
        assert comfy.faulty().graphs[-1]["hint"]["inputs"]["image"] == "example.png"
        for units, param in (
            ([unit, unit], "controlnet_units[1].input_image"),
            ([unit | {"model": "canny"}], "controlnet_units[0].model"),
            (["x"], "controlnet_units[0]"),
            ("x", "controlnet_units"),
        ):
            answer = engine.post(PATH, SMALL | {"controlnet_units": units})
            assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


def test_the_example_is_what_comfyui_exports() -> None:
    """Standard nodes only, and links that lead somewhere; checked without any server."""
    graph = json.loads((EXAMPLE / "txt2img_sd15.json").read_bytes())
    assert checked_graph(graph) == graph
