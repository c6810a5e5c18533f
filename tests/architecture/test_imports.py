"""Import rules that import-linter's contracts cannot say: they hold for a package except one of its parts."""

import grimp
import pytest

PACKAGES = ["inferq", "api", "queues", "storage", "workers", "watchers"]
FOR_ENGINE_SERVERS = [
    "diffusers",
    "fastapi",
    "funasr",
    "sentence_transformers",
    "starlette",
    "torch",
    "transformers",
    "uvicorn",
]


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph(*PACKAGES, include_external_packages=True, cache_dir=None)


def within(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def test_workers_take_only_the_artifact_store_from_storage(graph: grimp.ImportGraph) -> None:
    found = {
        (module, imported)
        for module in graph.modules
        if within(module, "workers")
        for imported in graph.find_modules_directly_imported_by(module)
        if within(imported, "storage") and not within(imported, "storage.artifacts")
    }
    assert not found


@pytest.mark.parametrize("library", FOR_ENGINE_SERVERS)
def test_only_engine_servers_import(library: str, graph: grimp.ImportGraph) -> None:
    importers = graph.find_modules_that_directly_import(library) if library in graph.modules else set()
    assert not {name for name in importers if within(name, "workers") and not within(name, "workers.engines")}
