"""The body of a call: JSON, or a form for the endpoints that OpenAI's clients send forms to."""

from contextlib import AsyncExitStack
from typing import Any

from starlette.requests import Request

from api.body import read_object
from api.context import caller_of, context_of
from api.forms import FormFile, is_form, read_form
from inferq.endpoints import Body, Endpoint
from inferq.endpoints.sound import BACKGROUND
from inferq.request import find_model
from storage.media import Drafted


async def read_request(request: Request, endpoint: Endpoint) -> Body:
    """The body as the endpoint's table has it; files of a form are artifacts by now.

    They are kept when the whole form was read, because the field that names the model may be its last. Raises what
    reading raises, and NotFound or InvalidRequest for a form whose model cannot serve it.
    """
    if not endpoint.uploads or not is_form(request):
        return await read_object(request)
    context = context_of(request)
    async with AsyncExitStack() as open_drafts:
        drafts: list[Drafted] = []
        names: dict[str, str] = {}

        async def take(file: FormFile) -> Any:
            draft = context.media.draft(
                file.chunks,
                param=file.field,
                tenant=caller_of(request).tenant,
                media_type=file.media_type,
                wants=endpoint.uploads[file.field].value,
            )
            drafts.append(await open_drafts.enter_async_context(draft))
            taken = f"artifact:{drafts[-1].sha256}"
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
            most_files=context.settings.media.max_media_per_request,
        )
        find_model(context.catalog, endpoint, body, proxy=request.scope.get("proxy"))
        for draft in drafts:
            await draft.commit()
    if "file" in names:
        body.setdefault("filename", names["file"])
    return body
