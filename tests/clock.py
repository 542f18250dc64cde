"""An event loop on which time passes when a test says so."""

import asyncio


class Clock(asyncio.SelectorEventLoop):
    """A loop on which time passes when a test says so."""

    passed = 0.0

    def time(self) -> float:
        return super().time() + self.passed

    async def wait(self, seconds: float) -> None:
        """Let time pass, and have what is due then be done."""
        self.passed += seconds
        for _ in range(3):
            await asyncio.sleep(0)
