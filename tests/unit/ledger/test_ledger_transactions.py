"""A transaction that lost against another is run again; a database that is away is an error that a retry may cure."""

import asyncio

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from medkg.contracts.errors import ResourceUnavailableError
from medkg.storage.engine import Engine
from medkg.storage.transactions import in_transaction, sqlstate

DOING = "adding up"


async def raise_state(connection: AsyncConnection, state: str) -> None:
    await connection.execute(text(f"DO $$ BEGIN RAISE EXCEPTION 'as asked' USING ERRCODE = '{state}'; END $$"))


async def test_of_two_transactions_in_a_deadlock_both_come_through(engine: Engine) -> None:
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE accounts (id int PRIMARY KEY, total int NOT NULL)"))
        await connection.execute(text("INSERT INTO accounts VALUES (1, 0), (2, 0)"))
    first_locks = asyncio.Barrier(2)
    begun = 0

    async def add(connection: AsyncConnection, order: tuple[int, int]) -> None:
        nonlocal begun
        begun += 1
        for place, account in enumerate(order):
            await connection.execute(text("UPDATE accounts SET total = total + 1 WHERE id = :id"), {"id": account})
            if place == 0 and begun <= 2:  # the loser, when it runs again, has nobody to wait for
                await first_locks.wait()

    async with asyncio.timeout(20):
        await asyncio.gather(
            in_transaction(engine, DOING, lambda connection: add(connection, (1, 2))),
            in_transaction(engine, DOING, lambda connection: add(connection, (2, 1))),
        )
    assert begun == 3
    async with engine.connect() as connection:
        assert (await connection.execute(text("SELECT total FROM accounts ORDER BY id"))).scalars().all() == [2, 2]


@pytest.mark.parametrize("state", ["40001", "40P01"])
async def test_a_transaction_that_always_loses_is_given_up_as_unavailable(engine: Engine, state: str) -> None:
    attempts = 0

    async def lose(connection: AsyncConnection) -> None:
        nonlocal attempts
        attempts += 1
        await raise_state(connection, state)

    with pytest.raises(ResourceUnavailableError, match=DOING):
        await in_transaction(engine, DOING, lose)
    assert attempts == 5


@pytest.mark.parametrize("state", ["53300", "57P01", "58030", "08006"])
async def test_a_server_in_trouble_is_unavailable_and_not_asked_again_at_once(engine: Engine, state: str) -> None:
    attempts = 0

    async def fail(connection: AsyncConnection) -> None:
        nonlocal attempts
        attempts += 1
        await raise_state(connection, state)

    with pytest.raises(ResourceUnavailableError, match="is it up"):
        await in_transaction(engine, DOING, fail)
    assert attempts == 1


async def test_a_connection_that_breaks_midway_is_unavailable(engine: Engine) -> None:
    async def die(connection: AsyncConnection) -> None:
        await connection.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))

    with pytest.raises(ResourceUnavailableError, match=DOING):
        await in_transaction(engine, DOING, die)
    assert await in_transaction(engine, DOING, lambda c: c.scalar(text("SELECT 1"))) == 1


async def test_a_fault_of_our_own_is_not_taken_for_an_absent_database(engine: Engine) -> None:
    with pytest.raises(DBAPIError) as caught:
        await in_transaction(engine, DOING, lambda c: c.execute(text("SELECT 1 / 0")))
    assert sqlstate(caught.value) == "22012"
