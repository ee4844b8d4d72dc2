"""The environment of the gate-router: variables with the prefix ``MEDKG_ROUTER_``."""

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class RouterSettings(BaseSettings):
    """How much is let in at once, and how often the router looks by itself."""

    model_config = SettingsConfigDict(env_prefix="MEDKG_ROUTER_", extra="ignore")

    tenant_documents: int = Field(
        2_000, ge=1, description="Documents of one tenant under way at once; further pages of its sources wait."
    )
    page_documents: int = Field(100, ge=1, le=1_000, description="Documents of one page of a source.")
    sweep_seconds: float = Field(1.0, gt=0, le=60, description="How often is looked for what a lost notice missed.")
    forget_seconds: float = Field(30.0, gt=0, le=3_600, description="How often waits of ended jobs are removed.")
