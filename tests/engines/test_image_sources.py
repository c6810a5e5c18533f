"""Where the image engine finds its weights, and what it says when something is missing."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from PIL import ImageChops

from tests.engines.pictures import furthest, one, refused, scene, stored
from tests.engines.process import (
    ENVIRONMENT,
    ROOT,
    EngineProcess,
    demo_model,
    engines_python,
    eventually,
    running,
    spawn,
)
from workers.engines.imaging.parts import in_parts

QUICK = {"guidance": 2.0, "steps": 10}


@pytest.fixture(scope="module")
def single() -> Path:
    return demo_model("demo-image-single")


@pytest.mark.parametrize("form", ["file", "folder"])
def test_one_file_paints_what_the_folder_paints(
    image: EngineProcess, short_dir: Path, single: Path, form: str
) -> None:
    """The original layout of names goes through diffusers' own reader of such files."""
    path = single / "demo-image.safetensors" if form == "file" else single
    with running("image", short_dir, str(path), options=QUICK) as other:
        for seed, prompt in enumerate(("a red picture", "a picture in blue")):
            assert furthest(one(image, prompt, seed=seed), one(other, prompt, seed=seed)) <= 1


WEIGHTS = """
import sys
from pathlib import Path
import torch
from workers.engines.imaging.sources import Source, load
folder, single = (load(Source(Path(path), torch.float32)) for path in sys.argv[1:])
for name in ("unet", "vae", "text_encoder"):
    left, right = getattr(folder, name).state_dict(), getattr(single, name).state_dict()
    assert left.keys() == right.keys(), name
    wrong = [key for key in left if not torch.equal(left[key], right[key])]
    assert not wrong, wrong
"""


def test_every_weight_of_the_file_is_that_of_the_folder(single: Path) -> None:
    """Pictures alone would hide some mistakes: the innermost blocks hardly show in small ones."""
    argv = [engines_python(), "-c", WEIGHTS, str(demo_model("demo-image")), str(single)]
    done = subprocess.run(argv, cwd=ROOT, env=ENVIRONMENT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_file_in_a_folder_of_its_own_name_finds_its_configuration_by_option(
    image: EngineProcess, short_dir: Path, single: Path
) -> None:
    folder = short_dir / "name.safetensors"
    folder.mkdir()
    (folder / "name.safetensors").symlink_to(single / "demo-image.safetensors")
    options = QUICK | {"config": str(single / "demo-image")}
    with running("image", short_dir, str(folder / "name.safetensors"), options=options) as other:
        assert furthest(one(image, "green paint"), one(other, "green paint")) <= 1


def last_words(folder: Path, model: str, options: dict[str, Any] | None = None) -> str:
    with spawn("image", folder, model, options=options) as engine:
        eventually(lambda: engine.process.poll() is not None, "it ended", 60)
        errors = engine.process.communicate()[1]
        assert engine.process.returncode in (2, 3), errors
        return errors.strip().splitlines()[-1]


def test_a_file_without_configuration_says_that_it_needs_one(short_dir: Path, single: Path) -> None:
    shutil.copy(single / "demo-image.safetensors", short_dir / "alone.safetensors")
    assert "option config must name a folder with model_index.json" in last_words(
        short_dir, str(short_dir / "alone.safetensors")
    )


@pytest.mark.parametrize(
    ("source", "options", "words"),
    [
        ("nowhere", {}, "there is no file or folder"),
        ("", {}, "no model_index.json and 2 files"),
        ("broken.safetensors", {"config": "MODEL"}, "cannot load"),
        ("MODEL", {"controlnets": {"x": "/nowhere"}}, "ControlNet 'x'"),
        ("MODEL", {"quantization": {"backend": "bitsandbytes_4bit"}}, "needs the package bitsandbytes"),
        ("MODEL", {"scheduler": "flow_euler"}, "this model has no 'flow_euler'"),
        ("MODEL", {"dtype": "bytes"}, "no precision"),
    ],
)
def test_what_cannot_be_loaded_is_said(
    short_dir: Path, source: str, options: dict[str, Any], words: str
) -> None:
    model = str(demo_model("demo-image"))
    for name in ("broken.safetensors", "other.safetensors"):
        (short_dir / name).write_bytes(bytes(100))
    path = model if source == "MODEL" else str(short_dir / source)
    given = {name: model if value == "MODEL" else value for name, value in options.items()}
    assert words in last_words(short_dir, path, given)


@pytest.mark.parametrize("options", [{"surprise": 1}, {"offload": "moon"}, {"max_steps": "many"}])
def test_wrong_options_end_the_start(short_dir: Path, options: dict[str, Any]) -> None:
    assert next(iter(options)) in last_words(short_dir, "/nowhere", options)


def test_limits_and_a_folder_of_controlnets(short_dir: Path) -> None:
    nets, media = short_dir / "nets", short_dir / "media"
    nets.mkdir(), media.mkdir()
    (nets / "lines").symlink_to(demo_model("demo-controlnet"))
    options: dict[str, Any] = {
        "max_pixels": 64 * 64,
        "max_steps": 5,
        "max_images": 2,
        "max_input_pixels": 3000,
    }
    options |= {"width": 32, "height": 48, "steps": 3, "scheduler": "Euler a", "controlnet_folder": str(nets)}
    options |= {"vae_slicing": True, "vae_tiling": True, "attention_slicing": True, "batch_items": 1}
    with running("image", short_dir, str(demo_model("demo-image")), options=options, media=media) as engine:
        health = engine.health()
        assert (health["controlnets"], health["controlnets_loaded"], health["size"]) == (
            ["lines"],
            [],
            [32, 48],
        )
        assert health["limits"] == {"pixels": 4096, "steps": 5, "images": 2}
        url = stored(scene((48, 48)), media, "small.png")
        picture = one(engine, "red", controlnet_units=[{"image": url, "model": "lines"}])
        assert (picture.size, "Sampler: euler_a" in picture.info["parameters"]) == ((32, 48), True)
        assert engine.health()["controlnets_loaded"] == ["lines"]
        large = stored(scene(), media, "large.png")
        for body, param in (
            ({"size": "64x72"}, "size"),
            ({"steps": 6}, "steps"),
            ({"n": 3}, "n"),
            ({"image": large}, "image"),
        ):
            assert refused(engine, body)[:2] == (400, param)
        assert ImageChops.difference(one(engine, "red"), one(engine, "red")).getbbox() is None


def test_a_batch_too_large_is_run_in_halves() -> None:
    runs: list[int] = []

    def run(items: Any) -> list[int]:
        runs.append(len(items))
        if len(items) > 2:
            raise MemoryError
        return [item * 2 for item in items]

    assert in_parts([1, 2, 3, 4, 5], run, lambda error: isinstance(error, MemoryError)) == [2, 4, 6, 8, 10]
    assert runs == [5, 2, 3, 1, 2]
    with pytest.raises(MemoryError):
        in_parts([1, 2, 3, 4], run, lambda error: False)


NETS = """
import gc, json, sys, weakref
from pathlib import Path
import torch
from workers.engines.imaging.sources import KEPT, ControlNets, Source, load
from workers.engines.imaging.studio import Studio
names = "abcdefgh"[:KEPT + 2]
nets = ControlNets({name: Path(sys.argv[2]) for name in names}, torch.float32, "cpu")
studio = Studio(load(Source(Path(sys.argv[1]), torch.float32)), nets, lambda view: None)
seen = {}
def use(*asked):
    studio.view("text", asked)
    seen.update({name: weakref.ref(nets.get(name)) for name in asked})
    gc.collect()
    return [nets.loaded(), sorted(name for name in seen if seen[name]() is not None)]
told = [use(name) for name in names[:KEPT]]
told += [use(names[0]), use(names[KEPT]), use(*names), use("a")]
print(json.dumps(told[KEPT:]))
"""


def test_controlnets_used_last_stay_and_the_others_free_their_memory() -> None:
    argv = [engines_python(), "-c", NETS, str(demo_model("demo-image")), str(demo_model("demo-controlnet"))]
    done = subprocess.run(argv, cwd=ROOT, env=ENVIRONMENT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    first, over, many, after = json.loads(done.stdout.splitlines()[-1])
    assert first == [list("abcd")] * 2
    assert over == [list("acde")] * 2
    assert many == [list("abcdef")] * 2
    assert after == [list("adef")] * 2


SPOILT = """
import sys
from pathlib import Path
import torch
from PIL import Image
from workers.engines.imaging.sources import ControlNets, Source, load
from workers.engines.imaging.studio import Item, Settings, Studio
pipe = load(Source(Path(sys.argv[1]), torch.float32))
studio = Studio(pipe, ControlNets({}, torch.float32, "cpu"), lambda view: None)
decode = studio.pipe.vae.decode
def spoil(latents, **more):
    found = decode(latents, **more)
    found[0][1] = torch.nan
    return found
studio.pipe.vae.decode = spoil
settings = Settings("text", 64, 64, 2, 1.0, None, None, 0, 1.0, (), 1, False)
left, lost, right = studio.paint([Item(settings, "red", "", seed) for seed in range(3)], lambda: None)
assert isinstance(left, Image.Image) and isinstance(right, Image.Image)
print(type(lost).__name__, lost)
"""


def test_values_that_are_no_numbers_cost_their_own_picture_only() -> None:
    argv = [engines_python(), "-c", SPOILT, str(demo_model("demo-image"))]
    done = subprocess.run(argv, cwd=ROOT, env=ENVIRONMENT, check=False, capture_output=True, text=True)
    assert done.stdout.startswith("EngineFault The model gave values that are no numbers"), done.stderr


def test_demo_recipe_says_what_it_is(single: Path) -> None:
    assert json.loads((single / "inferq-demo.json").read_text("utf-8"))["weights"] > 600
