"""Threads for stages that are plain functions, each of which can be interrupted when its time is over.

A thread cannot be killed. What can be done is to raise an exception in it (``PyThreadState_SetAsyncExc``): it strikes
between two Python instructions, so that a loop, a parser in Python or a chain of small calls ends within microseconds,
with its ``finally`` blocks run. It does not reach code that stays outside of Python (a C library that computes, a
system call, a lock that is waited for) until that returns. Such a thread is given up after a grace: the document fails
with StageTimeoutError, a new thread takes the place, and the old one ends whenever its call returns. Too many given up
mean that this process is full of work that nobody waits for: it says so and ends.

Why not ThreadPoolExecutor: it has no way to tell which thread runs what, replaces no thread, and waits for all of them
at exit, which a stuck one would prevent for ever.
"""

import asyncio
import ctypes
import logging
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Any

from prometheus_client import Counter

from medkg.contracts.errors import StageTimeoutError
from medkg.runtime.fair_queue import FairQueue
from medkg.runtime.resilience.stopping import WorkerStopped

log = logging.getLogger(__name__)

GRACE_SECONDS = 5.0  # between the first exception raised in a thread and giving it up
# Of a thread that computes in Python the event loop gets its turn after so long, and not after 5 ms: it takes dozens of
# turns for every document, and all that time nothing is polled, published or answered.
_SWITCH_SECONDS = 0.000_5
_SLOW_SECONDS = 0.005  # beside it the time until the event loop hands over the next work is little
_LONG_SECONDS = 1.0  # work that takes longer holds up nobody, where there may be more threads
_AGAIN_SECONDS = 0.5  # the exception is raised again: code may have caught it


class Interrupted(BaseException):
    """Raised in a thread whose time is over. Not an Exception, so that ``except Exception`` lets it pass."""


class _Task:
    """One piece of work, and who waits for it."""

    __slots__ = (
        "begun_at",
        "future",
        "is_cancelled",
        "is_handed",
        "loop",
        "seconds",
        "struck_at",
        "thread",
        "timer",
        "work",
    )

    def __init__(self, work: Callable[[], Any], seconds: float, loop: asyncio.AbstractEventLoop) -> None:
        self.work = work
        self.seconds = seconds
        self.loop = loop
        self.future: asyncio.Future[Any] = loop.create_future()
        self.begun_at: float | None = None
        self.struck_at: float | None = None  # when it was interrupted first
        self.is_cancelled = False
        self.is_handed = False
        self.thread: _Thread | None = None
        self.timer: asyncio.TimerHandle | None = None

    def settle(self, result: Any, error: BaseException | None) -> None:
        """Hand over what came of it; on the event loop."""
        if self.future.done():
            return
        if isinstance(error, StopIteration):  # no future takes one
            self.future.set_exception(RuntimeError(f"raised {error!r}"))
        elif error is not None and (self.struck_at is not None or isinstance(error, Interrupted)):
            self.future.set_exception(_out_of_time(self.seconds, "it was interrupted"))
        elif error is not None:
            self.future.set_exception(error)
        else:
            self.future.set_result(result)


class StageThreads:
    """A pool of ``size`` threads, for which tenants wait in turn. All calls come on one event loop.

    For work that has a thread for longer than a second there is one more, up to ``at_most`` in all.
    """

    def __init__(
        self,
        size: int,
        name: str,
        *,
        at_most: int = 0,
        given_up: Counter | None = None,
        max_given_up: int | None = None,
        grace_seconds: float = GRACE_SECONDS,
    ) -> None:
        self._name = name
        self._grace_seconds = grace_seconds
        self._counter = given_up
        self._max_given_up = max_given_up if max_given_up is not None else 4 * max(size, at_most)
        self._waiting: FairQueue[_Task] = FairQueue()
        self._tasks: SimpleQueue[_Task | None] = SimpleQueue()  # handed over, first come first served
        self._handed: set[_Task] = set()  # and not settled
        self._size = size
        self._at_most = max(size, at_most)
        self._timer: asyncio.TimerHandle | None = None
        self._is_slow = False  # the last work took long
        self._threads: set[_Thread] = set()
        self._made = 0
        self._is_used = False
        self.given_up = 0  # and not ended since
        for _ in range(size):
            self._add()

    async def run(self, work: Callable[[], Any], timeout_seconds: float, tenant: str = "") -> Any:
        """What ``work`` returns. Its time counts from when a thread takes it: waiting for one is nobody's failure.

        A tenant with one piece of work waits for at most one of every other tenant, beside those that threads have
        already or will take next.

        Raises:
            StageTimeoutError: it took longer.
            WorkerStopped: too many threads were given up.
            BaseException: whatever ``work`` raises.
        """
        if not self._is_used:
            self._is_used = True
            sys.setswitchinterval(min(sys.getswitchinterval(), _SWITCH_SECONDS))
        loop = asyncio.get_running_loop()
        task = _Task(work, timeout_seconds, loop)
        self._waiting.push(tenant.encode(), task)
        self._hand_over()
        self._keep_looking(loop)
        task.timer = loop.call_later(timeout_seconds, self._look, task)
        try:
            return await task.future
        except asyncio.CancelledError:
            task.is_cancelled = True
            if task.thread is not None:
                task.thread.interrupt(task)
            raise
        finally:
            task.timer.cancel()
            if task.is_handed:
                self._handed.discard(task)
                self._is_slow = task.begun_at is not None and time.monotonic() - task.begun_at > _SLOW_SECONDS
                self._hand_over()

    def _hand_over(self) -> None:
        # Work that is soon done is handed over ahead, so that no thread waits for the event loop: it has had its turn.
        ahead = 0 if self._is_slow else max(1, self._size // 2)
        while self._waiting and (len(self._handed) < self._size + ahead or len(self._handed) < self._room()):
            task = self._waiting.pop()
            if not task.is_cancelled:
                task.is_handed = True
                self._handed.add(task)
                self._tasks.put(task)

    def _room(self) -> int:
        """How many works may have a thread now; there is one for each."""
        begun_by = time.monotonic() - _LONG_SECONDS
        long = sum(task.begun_at is not None and task.begun_at <= begun_by for task in self._handed)
        room = min(self._size + long, self._at_most)
        while len(self._threads) < room:
            self._add()
        return room

    def _look_for_room(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        self._room()
        self._hand_over()
        self._keep_looking(loop)

    def _keep_looking(self, loop: asyncio.AbstractEventLoop) -> None:
        """While something waits for a thread, and there may be more of them once others turn out to be long."""
        if self._timer is None and self._at_most > self._size and (self._waiting or len(self._handed) > self._size):
            self._timer = loop.call_later(_LONG_SECONDS, self._look_for_room, loop)

    def close(self) -> None:
        """Let idle threads end, and interrupt the others; nothing is waited for."""
        if self._timer is not None:
            self._timer.cancel()
        for thread in self._threads:
            self._tasks.put(None)
            if thread.task is not None:
                thread.interrupt(thread.task)
        self._threads.clear()

    def _look(self, task: _Task) -> None:
        """Is the time of a task over? Then strike, again and again, and give its thread up in the end."""
        now = time.monotonic()
        if task.begun_at is None:
            wait = task.seconds
        elif now - task.begun_at < task.seconds:
            wait = task.seconds - (now - task.begun_at)
        elif task.struck_at is not None and now - task.struck_at >= self._grace_seconds:
            self._give_up(task)
            return
        else:
            task.struck_at = task.struck_at or now
            if task.thread is not None:
                task.thread.interrupt(task)
            wait = min(_AGAIN_SECONDS, self._grace_seconds)
        task.timer = task.loop.call_later(wait, self._look, task)

    def _give_up(self, task: _Task) -> None:
        thread = task.thread
        if task.future.done() or thread is None or not thread.leave_alone(task):
            return  # it has ended just now
        self._threads.discard(thread)
        self._add()
        self.given_up += 1
        if self._counter is not None:
            self._counter.inc()
        log.error("%s: thread %s does not react to its interruption and is given up", self._name, thread.name)
        if self.given_up > self._max_given_up:
            task.future.set_exception(
                WorkerStopped(
                    f"{self._name}: {self.given_up} threads run code that cannot be interrupted and does not return; "
                    "this process ends, so that a new one begins without them. Look for the documents with "
                    "stage_timeout, and raise timeout_seconds or bound the work of the stage"
                )
            )
            return
        task.future.set_exception(_out_of_time(task.seconds, "nor can it be interrupted: its thread was given up"))

    def _add(self) -> None:
        self._made += 1
        thread = _Thread(self._tasks, f"{self._name}-{self._made}", self._returned)
        self._threads.add(thread)
        thread.start()

    def _returned(self) -> None:
        self.given_up -= 1


class _Thread(threading.Thread):
    """Does one task after the other. A daemon: a process does not wait for what cannot be interrupted."""

    def __init__(self, tasks: "SimpleQueue[_Task | None]", name: str, on_return: Callable[[], None]) -> None:
        super().__init__(name=name, daemon=True)
        self._tasks = tasks
        self._on_return = on_return
        self._lock = threading.Lock()  # whoever interrupts holds it, so that the right task is struck
        self._is_left_alone = False
        self.task: _Task | None = None

    def run(self) -> None:
        while self._do_next():
            pass

    def _do_next(self) -> bool:
        task = self._tasks.get()
        if task is None:
            return False
        if not self._take(task):
            return True
        result: Any = None
        raised: BaseException | None = None
        has_left = False
        try:
            result = task.work()
        except BaseException as error:  # noqa: BLE001  handed to whoever waits for it
            raised = error
        while not has_left:
            try:
                has_left = self._leave()
            except Interrupted:  # struck after the work had ended
                continue
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            task.loop.call_soon_threadsafe(task.settle, result, raised)
            if self._is_left_alone:
                task.loop.call_soon_threadsafe(self._on_return)
        return not self._is_left_alone

    def interrupt(self, task: _Task) -> None:
        """Raise Interrupted in this thread, if it is still at this task."""
        with self._lock:
            if self.task is task and self.ident is not None:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self.ident), ctypes.py_object(Interrupted))

    def leave_alone(self, task: _Task) -> bool:
        """Nothing more is given to this thread. False when it has ended the task meanwhile."""
        with self._lock:
            if self.task is not task:
                return False
            self._is_left_alone = True
            return True

    def _take(self, task: _Task) -> bool:
        with self._lock:
            if task.is_cancelled:
                return False
            self.task = task
            task.thread = self
            task.begun_at = time.monotonic()
            return True

    def _leave(self) -> bool:
        """Be at no task; an exception that was raised too late, and would strike the next one, is taken back."""
        with self._lock:
            self.task = None
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(threading.get_ident()), None)
        return True


def _out_of_time(seconds: float, how: str) -> StageTimeoutError:
    return StageTimeoutError(f"running a stage on a thread: no result within {seconds} s; {how}")
