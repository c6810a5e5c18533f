"""Pages for people: they show what runs, work without the internet, and repeat nothing unescaped."""

import json
import re
from html import unescape
from typing import Any

from inferq.config import Settings
from tests.api.stack import Stack

ADDRESS = re.compile(r"https?:|//(?=[a-z0-9.-]+\.[a-z]{2,}/)", re.IGNORECASE)


async def test_the_landing_page_shows_models_and_lines_to_copy(stack: Stack, settings: Settings) -> None:
    folder = settings.home / "models" / "demo-chat"
    folder.mkdir(parents=True)
    (folder / "prompts.json").write_text(json.dumps({"What's 2 < 3?": "Yes."}))
    response = await stack.get("/", None)
    assert response.status_code == 200
    page = response.text
    assert "A &lt;small&gt; model." in page
    assert "<small>" not in page
    assert "{{" not in page
    lines = [unescape(line) for line in re.findall(r"<pre>(.*?)</pre>", page, re.DOTALL)]
    assert any(
        f"$(cat {settings.home}/admin.key)" in line and f"{stack.url}/v1/chat/completions" in line
        for line in lines
    )
    assert any("What'\"'\"'s 2 < 3?" in line for line in lines)
    for target in ("/docs", "/health", "http://127.0.0.1:5555/"):
        assert f'href="{target}"' in page


async def test_the_landing_page_allows_only_its_own_script(stack: Stack) -> None:
    response = await stack.get("/", None)
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "'unsafe-inline'" not in policy.split("script-src")[1].split(";")[0]
    assert response.text.count("<script") == 1


async def test_a_strange_host_is_not_repeated(stack: Stack) -> None:
    response = await stack.http.get("/", headers={"Host": 'x"><script>alert(1)</script>'})
    assert "alert(1)" not in response.text


async def test_no_page_refers_to_another_host(stack: Stack) -> None:
    for path in ("/", "/docs", "/docs/start.js"):
        page = (await stack.get(path, None)).text
        # Ourselves, Flower beside us, and the name of a format, which nobody fetches.
        for ours in (stack.url, "http://127.0.0.1:5555/", "http://www.w3.org/2000/svg"):
            page = page.replace(ours, "")
        assert not ADDRESS.search(page), path
    policy = (await stack.get("/docs", None)).headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "http" not in policy


async def test_the_documentation_has_its_parts(stack: Stack) -> None:
    page = (await stack.get("/docs", None)).text
    parts = re.findall(r'(?:src|href)="(/docs/[^"]+)"', page)
    assert len(parts) == 3
    for part in parts:
        response = await stack.get(part, None)
        assert response.status_code == 200, part
        assert response.headers["content-type"].split(";")[0] in ("text/css", "text/javascript")
    for name in ("redoc.standalone.js", "..%2f__init__.py", "core.py"):
        assert (await stack.get(f"/docs/{name}", None)).status_code == 404


def references(value: Any) -> set[str]:
    if isinstance(value, dict):
        own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
        return own.union(*(references(each) for each in value.values()))
    return set().union(*(references(each) for each in value)) if isinstance(value, list) else set()


async def test_the_openapi_document_is_complete(stack: Stack) -> None:
    document = (await stack.get("/openapi.json", None)).json()
    known = set(document["components"]["schemas"])
    assert {ref.removeprefix("#/components/schemas/") for ref in references(document)} <= known
    tags = {tag["name"] for tag in document["tags"]}
    for path, operations in document["paths"].items():
        assert not path.startswith("/openai")
        for method, operation in operations.items():
            where = f"{method} {path}"
            assert operation["summary"], where
            assert operation["description"], where
            assert set(operation["tags"]) <= tags, where
            assert "422" not in operation["responses"], where
            assert ("401" in operation["responses"]) is bool(operation["security"]), where
            placeholders = {name.partition(":")[0] for name in re.findall(r"\{([^}]+)\}", path)}
            given = [p["name"] for p in operation.get("parameters", []) if p["in"] == "path"]
            assert sorted(placeholders) == sorted(given), where


async def test_the_examples_of_the_documentation_are_accepted(stack: Stack) -> None:
    document = (await stack.get("/openapi.json", None)).json()
    operation = document["paths"]["/v1/jobs"]["post"]
    for name, example in operation["requestBody"]["content"]["application/json"]["examples"].items():
        assert (await stack.post("/v1/jobs", example["value"])).status_code == 202, name
    for endpoint in ("chat/completions", "completions", "embeddings"):
        content = document["paths"][f"/v1/{endpoint}"]["post"]["requestBody"]["content"]["application/json"]
        for name, example in content["examples"].items():
            response = await stack.post(f"/v1/{endpoint}", example["value"], Prefer="respond-async")
            assert response.status_code == 202, (endpoint, name, response.text)
