"""What this host has: the CPU always, with the smaller of its own memory and its control group's."""

from pathlib import Path

import psutil
import pytest

from inferq.config import Settings
from workers import devices
from workers.devices import cpu, cuda

GIB = 2**30


def test_the_cpu_is_always_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cpu, "_GROUP", tmp_path)
    (device,) = cpu.detect()
    assert (device["name"], device["kind"]) == ("cpu:0", "cpu")
    assert device["memory_total"] == psutil.virtual_memory().total


def test_a_control_group_with_less_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Cached files can be given up, so they do not count as used."""
    monkeypatch.setattr(cpu, "_GROUP", tmp_path)
    (tmp_path / "memory.max").write_text(f"{GIB}\n")
    (tmp_path / "memory.current").write_text(f"{GIB - 1000}\n")
    (tmp_path / "memory.stat").write_text(f"anon 5\ninactive_file {GIB // 2}\nactive_file 7\n")
    (device,) = cpu.detect()
    assert (device["memory_total"], device["memory_free"]) == (GIB, GIB // 2 + 1000)


@pytest.mark.parametrize("limit", ["max", str(2**60), "nonsense"])
def test_a_control_group_without_a_limit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, limit: str) -> None:
    monkeypatch.setattr(cpu, "_GROUP", tmp_path)
    (tmp_path / "memory.max").write_text(limit)
    (device,) = cpu.detect()
    assert device["memory_total"] == psutil.virtual_memory().total


def test_the_configuration_corrects_and_adds(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [{"name": "cuda:0", "kind": "cuda", "product": "X", "memory_total": 80, "memory_free": 50}]
    monkeypatch.setattr(cuda, "detect", lambda: [dict(each) for each in found])
    monkeypatch.setattr(cpu, "detect", list)
    settings = Settings.model_validate({"devices": {"cuda:0": {"memory": 40}, "gcu:0": {"memory": "1GiB"}}})
    by_name = {device["name"]: device for device in devices.detect(settings)}
    assert (by_name["cuda:0"]["memory_total"], by_name["cuda:0"]["memory_free"]) == (40, 10)
    assert (by_name["gcu:0"]["kind"], by_name["gcu:0"]["memory_free"]) == ("gcu", GIB)


def test_an_engine_sees_only_its_device() -> None:
    settings = Settings.model_validate({"devices": {"gcu:1": {"env": {"TOPS_VISIBLE_DEVICES": "1"}}}})
    assert devices.device_env("cuda:3", settings)["CUDA_VISIBLE_DEVICES"] == "3"
    assert devices.device_env("gcu:1", settings) == {"TOPS_VISIBLE_DEVICES": "1"}
    assert devices.device_env("cpu:0", settings) == {}
