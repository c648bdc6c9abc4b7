"""One thread captures at a time, and meanwhile no other thread runs the code of a module that a block stands for.

While `torch.export` runs, the module that it exports holds fake tensors, and torch's flags for tracing hold for the whole process. Calls
that run a compiled graph read neither, so they never wait.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator

from ..torch_private import only_export

_PATIENCE = 60.0
"""Seconds that a thread waits for the others to leave their modules before it runs its own module's code instead of capturing it. Only
threads that wait for each other inside a forward need so long."""


class Busy(Exception):
    """Other threads did not leave their modules in time, or export one."""


class Gate:
    """Admits either one thread that captures, or any number that run own code.

    A thread that waits to capture inside own code does not count as running: it stands still between two modules.
    """

    def __init__(self) -> None:
        self.owner: int | None = None  # the thread that captures
        self._condition = threading.Condition()
        self._running: dict[int, int] = {}  # by thread, how deep it is in own code

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Within, this thread runs own code, and no other thread captures."""
        me = threading.get_ident()
        with self._condition:
            if self.owner != me and me not in self._running:
                self._condition.wait_for(lambda: self.owner is None)
            self._running[me] = self._running.get(me, 0) + 1
        try:
            yield
        finally:
            with self._condition:
                self._running[me] -= 1
                if not self._running[me]:
                    del self._running[me]
                    self._condition.notify_all()

    @contextlib.contextmanager
    def capturing(self) -> Iterator[None]:
        """Within, only this thread captures, and no other runs own code; this one's blocks run their modules' own code.

        Raises:
            Busy: another thread stays in own code, perhaps because it waits for this one; or it exports a model.
        """
        me = threading.get_ident()
        with self._condition:
            depth = self._running.pop(me, 0)
            self._condition.notify_all()
            free = self._condition.wait_for(lambda: self.owner is None and not self._running, _PATIENCE)
            if free:
                self.owner = me
            elif depth:
                self._running[me] = depth
        if not free:
            raise Busy
        try:
            with only_export(wait=False) as alone:
                if not alone:
                    raise Busy
                yield
        finally:
            with self._condition:
                self.owner = None
                if depth:
                    self._running[me] = depth
                self._condition.notify_all()


GATE = Gate()
os.register_at_fork(after_in_child=GATE.__init__)  # type: ignore[misc]
