"""The environment of the gateway: variables with the prefix ``MEDKG_GATEWAY_``."""

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class GatewaySettings(BaseSettings):
    """Where the gateway listens, and what it accepts."""

    model_config = SettingsConfigDict(env_prefix="MEDKG_GATEWAY_", extra="ignore")

    host: str = Field("127.0.0.1", description="Address to listen on. There is no login yet: keep it on loopback.")
    port: int = Field(8750, ge=0, le=65_535, description="Port to listen on; 0 any free one.")
    admission_seconds: float = Field(
        10.0, ge=0, le=60, description="How long a submission waits for the gate-router's word."
    )
    max_body_bytes: int = Field(1_048_576, ge=1_024, description="Largest request body.")
