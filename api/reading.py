"""The body of a call: JSON, or a form for the endpoints that OpenAI's clients send forms to."""

from starlette.requests import Request

from api.body import read_object
from api.context import text_header
from inferq.endpoints import Body, Endpoint


async def read_request(request: Request, endpoint: Endpoint) -> Body:
    """The body as the endpoint's table has it; files of a form are artifacts by now. Raises what reading raises."""
    media_type = text_header(request.scope, b"content-type") or ""
    if not media_type.lower().startswith("multipart/form-data"):
        return await read_object(request)
    raise NotImplementedError
