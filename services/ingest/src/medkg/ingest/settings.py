"""The environment of the ingest service."""

import os
from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

ROOTS_VARIABLE = "MEDKG_INGEST_FILES_ROOTS"


class FilesSettings(BaseSettings):
    """What the source ``files`` may read, and how much of it at once."""

    model_config = SettingsConfigDict(env_prefix="MEDKG_INGEST_FILES_", extra="ignore")

    roots: Annotated[tuple[Path, ...], NoDecode] = Field(
        (), description="Folders that jobs may read, separated like PATH; none: every path is refused."
    )
    max_record_bytes: int = Field(
        64 * 1024 * 1024, ge=1_024, le=1024**3, description="Largest record; a larger one is refused alone."
    )
    max_page_bytes: int = Field(
        16 * 1024 * 1024,
        ge=1_024,
        le=1024**3,
        description="A page ends before the record that would take it over this.",
    )

    @field_validator("roots", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part for part in value.split(os.pathsep) if part) if isinstance(value, str) else value


class ApiSettings(BaseSettings):
    """What the adapters of HTTP APIs have in common."""

    contact: str = Field(
        "", max_length=200, pattern=r"^[\x20-\x7e]*$", description="Address or URL named in the User-Agent."
    )
    connect_timeout_seconds: float = Field(10, gt=0, le=120, description="Time to connect.")
    read_timeout_seconds: float = Field(30, gt=0, le=600, description="Longest silence within an answer.")
    max_response_bytes: int = Field(
        16 * 1024 * 1024, ge=1_024, le=1024**3, description="Largest answer; a larger one is refused."
    )
    requests_per_second: float = Field(5, gt=0, le=100, description="Requests to the API, from this process.")


class UnpaywallSettings(ApiSettings):
    """How to reach Unpaywall, or a mirror of its API v2."""

    model_config = SettingsConfigDict(env_prefix="MEDKG_INGEST_UNPAYWALL_", extra="ignore")

    base_url: str = Field(
        "https://api.unpaywall.org/v2", pattern=r"^https?://[^\s?#]+$", description="Base URL of the API v2."
    )
    email: str = Field(
        "",
        max_length=200,
        pattern=r"^(?:[!-?A-~]+@[!-?A-~]+)?$",
        description="Your e-mail address; Unpaywall asks for it.",
    )


class CoreSettings(ApiSettings):
    """How to reach CORE, or a mirror of its API v3."""

    model_config = SettingsConfigDict(env_prefix="MEDKG_INGEST_CORE_", extra="ignore")

    base_url: str = Field(
        "https://api.core.ac.uk/v3", pattern=r"^https?://[^\s?#]+$", description="Base URL of the API v3."
    )
    api_key: SecretStr = Field(
        SecretStr(""), description="Key of the API; without one CORE answers a few requests a day."
    )


class PmcFulltextSettings(ApiSettings):
    """How to reach the PMC Cloud Service, or a mirror of its bucket."""

    model_config = SettingsConfigDict(env_prefix="MEDKG_INGEST_PMC_", extra="ignore")

    base_url: str = Field(
        "https://pmc-oa-opendata.s3.amazonaws.com",
        pattern=r"^https?://[^\s?#]+$",
        description="URL of the bucket of the PMC article datasets.",
    )


class ClinicalTrialsSettings(BaseSettings):
    """How to reach ClinicalTrials.gov, or a mirror of its API v2."""

    model_config = SettingsConfigDict(env_prefix="MEDKG_INGEST_CLINICALTRIALS_", extra="ignore")

    base_url: str = Field(
        "https://clinicaltrials.gov/api/v2", pattern=r"^https?://[^\s?#]+$", description="Base URL of the API v2."
    )
    contact: str = Field(
        "", max_length=200, pattern=r"^[\x20-\x7e]*$", description="Address or URL named in the User-Agent."
    )
    connect_timeout_seconds: float = Field(10, gt=0, le=120, description="Time to connect.")
    read_timeout_seconds: float = Field(30, gt=0, le=600, description="Longest silence within an answer.")
    max_response_bytes: int = Field(
        128 * 1024 * 1024, ge=1_024, le=1024**3, description="Largest answer; a larger one is refused."
    )
