"""The environment of the download service."""

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class DownloadSettings(BaseSettings):
    """What the download service fetches, how politely, and where it never goes."""

    model_config = SettingsConfigDict(env_prefix="MEDKG_DOWNLOAD_", extra="ignore")

    contact: str = Field(
        "", max_length=200, pattern=r"^[\x20-\x7e]*$", description="Address or URL named in the User-Agent."
    )
    max_bytes: int = Field(200 * 1024 * 1024, ge=1_024, le=4 * 1024**3, description="Largest file.")
    connect_seconds: float = Field(10, gt=0, le=120, description="Time to connect, the resolver included.")
    idle_seconds: float = Field(20, gt=0, le=600, description="Longest silence within an answer.")
    total_seconds: float = Field(120, gt=0, le=3_600, description="Time for one location, resumptions included.")
    fresh_seconds: float = Field(
        3_600, ge=0, le=30 * 86_400, description="A file fetched or confirmed so recently is not asked for again."
    )
    max_redirects: int = Field(10, ge=0, le=30, description="Redirects that are followed.")
    requests_per_second: float = Field(1, gt=0, le=100, description="Requests to one host, from this process.")
    connections_per_host: int = Field(2, ge=1, le=32, description="Files fetched from one host at the same time.")
    ports: str = Field(
        "80,443",
        max_length=200,
        pattern=r"^[0-9]{1,5}(,[0-9]{1,5})*$",
        description="Ports that may be connected to, separated by commas.",
    )
    allow_loopback: bool = Field(
        False, description="Lets loopback addresses be fetched from: for tests with a server of their own, never else."
    )

    @property
    def allowed_ports(self) -> frozenset[int]:
        """``ports`` as numbers."""
        return frozenset(map(int, self.ports.split(",")))
