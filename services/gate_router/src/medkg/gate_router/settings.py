"""The environment of the gate-router: variables with the prefix ``MEDKG_ROUTER_``."""

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class RouterSettings(BaseSettings):
    """How much is let in at once, and how often the router looks by itself."""

    model_config = SettingsConfigDict(env_prefix="MEDKG_ROUTER_", extra="ignore")

    tenant_documents: int = Field(
        80, ge=1, description="Documents of one tenant under way at once; further pages of its sources wait."
    )
    tenant_parked: int = Field(
        20_000, ge=0, description="Documents of one tenant at gates that do not count as under way."
    )
    page_documents: int = Field(40, ge=1, le=1_000, description="Documents of one page of a source.")
    topic_documents: int = Field(
        1_000, ge=1, description="Documents that a topic may hold unread while gates and retries release into it."
    )
    sweep_seconds: float = Field(5.0, gt=0, le=60, description="How often is looked for what a lost notice missed.")
    ask_again_seconds: float = Field(
        43_200.0, ge=60, description="How long a file that was asked for is waited for until it is asked for again."
    )
    forget_seconds: float = Field(30.0, gt=0, le=3_600, description="How often waits of ended jobs are removed.")
    keep_failed_seconds: float = Field(
        2_592_000.0, ge=0, description="How long a document that failed at a gate or join can be taken up again."
    )
