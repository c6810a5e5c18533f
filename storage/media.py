"""interim"""

from inferq import errors
from inferq.request import Request
from storage.artifacts import ArtifactStore


class MediaStore:
    def __init__(self, artifacts: ArtifactStore) -> None:
        self.artifacts = artifacts

    async def take_all(self, request: Request) -> None:
        for place in request.places():
            raise errors.NotReady(f"{place.param}: not yet", param=place.param)
