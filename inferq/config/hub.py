"""The section `hub`: where models are brought from."""

from pydantic import Field

from inferq.config.section import Section
from inferq.config.units import Duration, Size


class Hub(Section):
    """Where `inferq models pull` gets models. Tokens come from HF_TOKEN and MODELSCOPE_API_TOKEN alone."""

    huggingface: str | None = Field(default=None, pattern=r"^https?://[^\s]+$")
    """Base address of a hub like Hugging Face's; unset: HF_ENDPOINT, else what its installed library says."""
    modelscope: str | None = Field(default=None, pattern=r"^https?://[^\s]+$")
    """The same of a hub like ModelScope's; unset: MODELSCOPE_ENDPOINT or MODELSCOPE_DOMAIN, else its library's."""
    allow_hosts: list[str] = []
    """Further hosts (host or host:port) that files may come from over http or from an address that is not public."""
    connections: int = Field(default=4, ge=1, le=32)
    """Files of one model that are fetched at once."""
    max_bytes: Size = 2 * 2**40
    """Largest model that is pulled."""
    reserve_bytes: Size = Field(default=512 * 2**20, ge=0)
    """Room on the disk that a pull leaves free."""
    timeout: Duration = 86400.0
    """Longest run of one attempt; what has arrived by then is not fetched again."""
