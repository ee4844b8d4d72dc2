"""The MinerU service's own environment: where MinerU answers, and how patient we are with it."""

from typing import Literal

from pydantic import Field, HttpUrl, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class MineruSettings(BaseSettings):
    """Variables ``MEDKG_MINERU_…``."""

    model_config = SettingsConfigDict(env_prefix="MEDKG_MINERU_", extra="ignore")

    url: HttpUrl | None = Field(None, description="MinerU's HTTP API, such as http://127.0.0.1:8000; required.")
    token: SecretStr = Field(SecretStr(""), description="Bearer token, where a proxy before MinerU wants one.")
    mode: Literal["auto", "tasks", "sync"] = Field(
        "auto", description="Submit to /tasks and poll, or wait at /file_parse; auto: tasks where the server has them."
    )
    backend: str = Field("", max_length=60, description="pipeline, hybrid-engine, …; empty: the server's default.")
    language: str = Field("en", max_length=20, description="Language given to MinerU's OCR.")
    parse_method: Literal["auto", "txt", "ocr"] = Field("auto", description="Text layer, OCR, or what fits.")
    concurrency: int = Field(3, ge=1, le=256, description="Files that MinerU is given at the same time.")
    poll_seconds: float = Field(3.0, ge=0.05, le=600, description="Between two looks at a task.")
    request_seconds: float = Field(120.0, ge=1, le=3_600, description="Longest wait for an answer, parsing aside.")
    parse_seconds: float = Field(
        21_600.0, ge=1, le=2_592_000, description="Longest time for one file, from each submission on."
    )
    resubmits: int = Field(
        3, ge=0, le=20, description="How often a file is given again after MinerU lost or spoilt it."
    )
    max_file_bytes: int = Field(209_715_200, ge=1_000, description="Largest PDF that is sent.")
    max_answer_bytes: int = Field(536_870_912, ge=1_000, description="Largest answer that is read.")
    breaker_failures: int = Field(5, ge=1, le=100, description="Failures in a row after which MinerU is left alone.")
    breaker_seconds: float = Field(30.0, ge=0.1, le=3_600, description="For how long, until one request may try.")
