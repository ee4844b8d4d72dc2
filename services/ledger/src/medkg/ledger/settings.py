"""The environment of the ledger service: variables with the prefix ``MEDKG_LEDGER_``."""

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class LedgerSettings(BaseSettings):
    """How often is looked for what is lost, and what counts as lost."""

    model_config = SettingsConfigDict(env_prefix="MEDKG_LEDGER_", extra="ignore")

    reconcile_minutes: float = Field(
        15.0, ge=0, le=10_080, description="How often lost documents are looked for and sent on; 0 never."
    )
    lost_minutes: float = Field(
        60.0, ge=1, le=100_000, description="Silence about a document under way after which it may be lost."
    )
