"""Time that passes only when somebody sleeps."""

import asyncio


class FakeClock:
    """Every sleep is over at once; the time it stood for has passed."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        self.seconds += seconds
        self.slept.append(seconds)
        await asyncio.sleep(0)
