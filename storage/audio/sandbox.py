"""What a worker gives up before it sees the first foreign byte.

A fault in a decoder may one day let a recording run code of its own. Then this decides what the
code can reach: the one recording that the worker has open, memory, and the socket to its parent. In
three parts, each of which would refuse much alone, and none of which needs a package, a helper with
rights of its own or root:

- **namespaces**: a network without any address and a System V IPC of its own; as a user that is
  nobody outside, with no capability left, also where the service is root.
- **Landlock**: no file or folder can be opened, made, moved or removed, and with newer kernels no
  TCP port bound or connected, no abstract socket reached, no signal sent to another process. The
  path of a file may still be asked about.
- **filter**: what is not on the short list of system calls in `filter` fails. It is the strongest:
  it also keeps the worker from starting, tracing or ending anything, and from whatever else a
  kernel offers.

Kernels and containers differ, and which parts hold is not for the archive to decide: a user
namespace may be forbidden, Landlock is absent before Linux 5.13, the filter is known for x86_64 and
aarch64. A part that cannot be had is left out and said, in the log of the service and by `archive
check`.
What never depends on the kernel (limits, no dump, no new rights, no descriptor) is in `worker`.

RLIMIT_NPROC is not among it: threads count as processes, FFmpeg starts some where the filter does
not keep it from it, and root is not bound by it.
"""

import ctypes
import os
from collections.abc import Callable
from dataclasses import dataclass

from storage.audio import filter as calls

_CLONE_NEWUSER, _CLONE_NEWNET, _CLONE_NEWIPC = 0x10000000, 0x40000000, 0x08000000
_CAPABILITY_VERSION = 0x20080522
_LANDLOCK_CREATE, _LANDLOCK_RESTRICT = 444, 446  # the same numbers on every architecture
_LANDLOCK_VERSION = 1
# What a version of Landlock can deny of files; TCP came with 4, sockets and signals with 6.
_FILES = {1: 0x1FFF, 2: 0x3FFF, 3: 0x7FFF, 4: 0x7FFF, 5: 0xFFFF}
_TCP, _SCOPES = 0b11, 0b11
_SECCOMP = {"x86_64": 317, "aarch64": 277}
_SECCOMP_FILTER, _SECCOMP_ALL_THREADS = 1, 1

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Sandbox:
    """What is in force in a worker, and what could not be had there and why."""

    in_force: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()

    @classmethod
    def from_words(cls, told: dict[str, list[str]]) -> "Sandbox":
        """Read what `words` wrote."""
        return cls(tuple(told["in_force"]), tuple(told["missing"]))

    def words(self) -> dict[str, tuple[str, ...]]:
        return {"in_force": self.in_force, "missing": self.missing}

    def attempt(self, name: str, part: Callable[[], None]) -> "Sandbox":
        """Put a part into force, or note that it cannot be."""
        try:
            part()
        except OSError as error:
            said = f"{name} ({error.strerror})"
            return Sandbox(self.in_force, (*self.missing, said))
        return Sandbox((*self.in_force, name), self.missing)

    def __str__(self) -> str:
        held = "decoded in a sandbox of " + ", ".join(self.in_force)
        text = held if self.in_force else "decoded in processes with limits"
        if self.missing:
            text += f"; not to be had on this system: {', '.join(self.missing)}"
        return text


def namespaces() -> None:
    """Leave the network and all rights. Only while there are no threads."""
    if _libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET | _CLONE_NEWIPC):
        raise _error()
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
    if _libc.capset(header, (ctypes.c_uint32 * 6)()):
        raise _error()


def landlock() -> None:
    """Give up all files, and of the rest what this kernel's Landlock knows. For this thread."""
    version = _libc.syscall(_LANDLOCK_CREATE, None, ctypes.c_size_t(0), _LANDLOCK_VERSION)
    if version < 1:
        raise _error()
    denied = [_FILES[min(version, max(_FILES))]]
    denied += [_TCP] if version >= 4 else []
    denied += [_SCOPES] if version >= 6 else []
    rules = (ctypes.c_uint64 * len(denied))(*denied)
    ruleset = _libc.syscall(_LANDLOCK_CREATE, rules, ctypes.c_size_t(ctypes.sizeof(rules)), 0)
    if ruleset < 0:
        raise _error()
    try:
        if _libc.syscall(_LANDLOCK_RESTRICT, ruleset, 0):
            raise _error()
    finally:
        os.close(ruleset)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def system_calls() -> None:
    """Give up all system calls but the listed, for all threads."""
    machine = calls.here()
    if machine is None:
        raise OSError(0, "not written for this architecture")
    program = calls.program(machine)
    wanted = _Program(len(program) // 8, program)
    number = _SECCOMP[os.uname().machine]
    if _libc.syscall(number, _SECCOMP_FILTER, _SECCOMP_ALL_THREADS, ctypes.byref(wanted)):
        raise _error()


def _error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
