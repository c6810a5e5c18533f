"""What we ship: the wheel holds every file that runs, and our top-level names are ours alone."""

import tomllib
from importlib.metadata import packages_distributions
from importlib.util import find_spec
from pathlib import Path
from zipfile import ZipFile

import pytest
from hatchling.builders.wheel import WheelBuilder

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES = ["inferq", "api", "queues", "storage", "workers", "watchers"]


@pytest.fixture(scope="module")
def wheel_names(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    (wheel,) = WheelBuilder(str(ROOT)).build(
        directory=str(tmp_path_factory.mktemp("wheel")), versions=["standard"]
    )
    return set(ZipFile(wheel).namelist())


def package_files(package: str) -> set[str]:
    files = (path for path in (ROOT / package).rglob("*") if path.is_file())
    return {path.relative_to(ROOT).as_posix() for path in files if "__pycache__" not in path.parts}


@pytest.mark.parametrize("package", PACKAGES)
def test_wheel_holds_every_file_of_a_package(package: str, wheel_names: set[str]) -> None:
    assert f"{package}/__init__.py" in wheel_names
    assert package_files(package) <= wheel_names


def test_wheel_holds_nothing_outside_the_packages(wheel_names: set[str]) -> None:
    folders = {name.split("/")[0] for name in wheel_names}
    assert {folder for folder in folders if not folder.endswith(".dist-info")} == set(PACKAGES)


@pytest.mark.parametrize("package", PACKAGES)
def test_no_other_distribution_claims_a_name(package: str) -> None:
    assert set(packages_distributions().get(package, [])) <= {"inferq"}


@pytest.mark.parametrize("package", PACKAGES)
def test_a_name_resolves_to_this_checkout(package: str) -> None:
    spec = find_spec(package)
    assert spec is not None
    assert spec.origin == str(ROOT / package / "__init__.py")


def test_every_package_is_shipped_checked_and_layered() -> None:
    tools = PROJECT["tool"]
    importlinter = tools["importlinter"]
    layers = next(
        contract["layers"] for contract in importlinter["contracts"] if contract["type"] == "layers"
    )
    expected = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"benchmarks", "tests"}
    assert expected == set(PACKAGES)
    assert set(tools["hatch"]["build"]["targets"]["wheel"]["packages"]) == expected
    assert set(tools["mypy"]["packages"]) == expected
    assert set(importlinter["root_packages"]) == expected
    assert {name.strip() for layer in layers for name in layer.split("|")} == expected


def test_import_contracts_have_no_exceptions() -> None:
    assert not [
        contract for contract in PROJECT["tool"]["importlinter"]["contracts"] if "ignore_imports" in contract
    ]
