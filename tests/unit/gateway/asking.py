"""A gateway made of fakes, spoken to as over HTTP, without a socket."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import httpx
from fastapi import FastAPI
from prometheus_client import CollectorRegistry
from tests.unit.gateway.fakes import FakeDesk, FakeGraph, FakeKafka, FakeLedger, FakePipelines, FakeSearch

from medkg.gateway.http import create_app
from medkg.gateway.parts import About, Parts

ABOUT = About("kafka:9092", ("gateway", "ledger"), {"data": "/data"})


@dataclass
class Gateway:
    """The fakes behind a gateway, and requests to it."""

    kafka: FakeKafka = field(default_factory=FakeKafka)
    ledger: FakeLedger = field(default_factory=FakeLedger)
    desk: FakeDesk = field(default_factory=FakeDesk)
    search: FakeSearch = field(default_factory=FakeSearch)
    pipelines: FakePipelines = field(default_factory=FakePipelines)
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    settings: dict[str, Any] = field(default_factory=lambda: {"admission_seconds": 0.2})

    @cached_property
    def app(self) -> FastAPI:
        """Put together at the first request: what a test changes in the settings it changes before."""
        parts = Parts(
            publisher=self.kafka,
            ledger=self.ledger,
            letters=self.desk,
            search=self.search,
            graph=FakeGraph(),
            pipelines=self.pipelines,
            registry=self.registry,
            about=ABOUT,
            **self.settings,
        )
        return create_app(parts)

    async def send(self, method: str, path: str, **request: Any) -> httpx.Response:
        transport = httpx.ASGITransport(self.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
            return await client.request(method, path, **request)

    async def get(self, path: str, **query: Any) -> httpx.Response:
        return await self.send("GET", path, params=query or None)

    async def submit(self, body: Any, **headers: str) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.send("POST", "/v1/jobs", json=body, headers=named)


def error_of(response: httpx.Response) -> dict[str, Any]:
    """The error of an answer; checks the one form of all errors."""
    body = response.json()
    assert list(body) == ["error"], body
    assert {"code", "message"} <= set(body["error"]) <= {"code", "message", "hint", "faults", "job_id"}
    assert all(set(fault) == {"pointer", "message", "hint"} for fault in body["error"].get("faults", []))
    return dict(body["error"])
