"""The job that a path names, if its caller may see it."""

from starlette.requests import Request

from api.context import caller_of, context_of
from inferq import errors
from inferq.job import Job, is_job_id


async def find_job(request: Request, parameter: str = "job_id") -> Job:
    """Raises JobNotFound, also for another tenant's job: that is as good as none."""
    job_id = request.path_params[parameter]
    missing = errors.JobNotFound(f"There is no job {job_id}.")
    if not is_job_id(job_id):
        raise missing
    job = await context_of(request).gateway.intake.find(job_id)
    if not caller_of(request).sees(job.spec.tenant):
        raise missing
    return job
