"""What the outside asks of a running job: SIGTERM, save and stop; SIGUSR1, save and go on.

A handler sets a flag and nothing else, since a rank that began to save by itself would wait for the others in a collective they never
enter. The flags are added up over ranks at the end of every step, with the step's counts, so a signal to a single rank reaches all of them
at the same step: DeepSpeed's launcher signals ranks one after another, 30 s apart. Further SIGTERMs change nothing, because a launcher and
a scheduler often both send one; who cannot wait for the step and the save sends SIGKILL, and the checkpoint before remains.
"""

import signal
from typing import Self


class Signals:
    """A context manager that listens; outside of it the signals do what they did before."""

    def __init__(self) -> None:
        self.stop = False
        """SIGTERM has come."""
        self.save = False
        """SIGUSR1 has come; whoever acts on it takes it back."""

    def __enter__(self) -> Self:
        self._before = {
            signal.SIGTERM: signal.signal(signal.SIGTERM, self._on_term),
            signal.SIGUSR1: signal.signal(signal.SIGUSR1, self._on_user),
        }
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _on_term(self, *_) -> None:
        self.stop = True

    def _on_user(self, *_) -> None:
        self.save = True
