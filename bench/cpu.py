"""Where the time goes: the CPU time of each process while a side was measured.

On a machine that others use as well the clock on the wall says little; this says what a request
costs, and so who would have to become cheaper.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

import psutil


class Meter:
    """The CPU time of named processes and their children, summed up by side."""

    def __init__(self) -> None:
        self._processes: dict[str, psutil.Process] = {}
        self._spent: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
        self._requests: dict[str, int] = defaultdict(int)

    def watch(self, name: str, pid: int | None) -> None:
        """Measure this process from now on; the children of a `service...` apart, as `workers`."""
        self._processes[name] = psutil.Process(pid)

    def forget(self, name: str) -> None:
        """Measure it no more."""
        self._processes.pop(name, None)

    def start(self) -> None:
        """Begin anew: what a warm-up cost does not count."""
        self._spent.clear()
        self._requests.clear()

    @contextmanager
    def during(self, side: str, requests: int) -> Iterator[None]:
        """Count what is spent within to this side."""
        before = self._now()
        yield
        for name, seconds in self._now().items():
            self._spent[side][name] += seconds - before.get(name, 0)
        self._requests[side] += requests

    def lines(self) -> list[str]:
        """One line a side: milliseconds a request, by process."""
        return [
            f"  CPU ms a request, {side}: {_listed(spent, self._requests[side])}"
            for side, spent in self._spent.items()
        ]

    def _now(self) -> dict[str, float]:
        found = {}
        for name, process in self._processes.items():
            with suppress(psutil.NoSuchProcess):
                children = sum(map(_seconds, process.children(recursive=True)))
                if name.startswith("service"):
                    found[name] = _seconds(process)
                    found["workers"] = found.get("workers", 0) + children
                else:
                    found[name] = _seconds(process) + children
        return found


def _seconds(process: psutil.Process) -> float:
    with suppress(psutil.NoSuchProcess):
        times = process.cpu_times()
        return float(times.user + times.system)
    return 0.0


def _listed(spent: Mapping[str, float], requests: int) -> str:
    parts = {name: 1000 * seconds / requests for name, seconds in spent.items()}
    shown = ", ".join(f"{name} {part:.2f}" for name, part in parts.items() if part >= 0.005)
    return f"{shown}; in all {sum(parts.values()):.2f}"
