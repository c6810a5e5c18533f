"""The body of a call: JSON, or a form for the endpoints that OpenAI's clients send forms to."""

from typing import Any

from starlette.requests import Request

from api.body import read_object
from api.context import context_of
from api.forms import FormFile, is_form, read_form
from inferq.endpoints import Body, Endpoint
from inferq.endpoints.sound import BACKGROUND


async def read_request(request: Request, endpoint: Endpoint) -> Body:
    """The body as the endpoint's table has it; files of a form are artifacts by now. Raises what reading raises."""
    if not endpoint.uploads or not is_form(request):
        return await read_object(request)
    context = context_of(request)
    names: dict[str, str] = {}

    async def take(file: FormFile) -> Any:
        media = await context.media.receive(
            file.chunks,
            param=file.field,
            media_type=file.media_type,
            wants=endpoint.uploads[file.field].value,
        )
        taken = f"artifact:{media.sha256}"
        if file.field == "files":
            return {"file": taken, "filename": file.filename}
        if file.filename:
            names[file.field] = file.filename
        return taken

    body = await read_form(
        request,
        {**endpoint.table, "background": BACKGROUND},
        files=endpoint.uploads,
        on_file=take,
        limit=context.settings.media.max_upload,
    )
    if "file" in names:
        body.setdefault("filename", names["file"])
    return body
