"""The system calls that a worker may make, as a program that the kernel runs before each of them.

It is a list of what decoding and the loop of jobs were seen to need (`strace -f` over the tests),
and everything that is not on it fails with EPERM: opening, connecting, starting a process or a
thread, signals, links and removals, and what is yet to be invented. A call on the list that could
do more than it is needed for is let through for that alone: memory is never made executable and
never maps a file, what is sent goes to the parent, and the one limit to be set is that of processor
time. A call by the numbers of another architecture ends the process.

It fails instead of killing, for two reasons. glibc and FFmpeg ask for things that they do without
(a source of random numbers, the number of processors: told that nobody knows, FFmpeg starts no
threads). And a worker that was killed costs a recording, so what a new release of either asks for
must not.

The program is that of BPF, put together by hand: it needs no library, and only the two
architectures whose numbers stand here.
"""

import errno
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass

LOAD, EQUAL, ANY_BIT, RETURN = 0x20, 0x15, 0x45, 0x06
ALLOW, REFUSE, KILL = 0x7FFF0000, 0x00050000 | errno.EPERM, 0x80000000
NUMBER, ARCHITECTURE, ARGUMENTS = 0, 4, 16  # where in the kernel's `struct seccomp_data`

_PROT_EXEC, _MAP_ANONYMOUS, _RLIMIT_CPU = 4, 0x20, 0
_CONTROL, _STDERR = 3, 2


@dataclass(frozen=True, slots=True)
class Only:
    """What an argument must be: `equal`, or without any of `none_of`, or with a bit of `any_of`.

    The low half is compared: the kernel reads these arguments as 32 bits, or the bits are there.
    """

    argument: int
    equal: int | None = None
    none_of: int = 0
    any_of: int = 0


@dataclass(frozen=True, slots=True)
class Machine:
    """An architecture as the kernel names it, and the column of its numbers in the table."""

    audit: int
    column: int


MACHINES = {"x86_64": Machine(0xC000003E, 0), "aarch64": Machine(0xC00000B7, 1)}

# name: number on x86_64, number on aarch64, what the arguments must be
CALLS: dict[str, tuple[int, int, tuple[Only, ...]]] = {
    "futex": (202, 98, ()),
    "pread64": (17, 67, ()),
    "clock_gettime": (228, 113, ()),
    "sendto": (44, 206, (Only(0, equal=_CONTROL),)),
    "recvmsg": (47, 212, (Only(0, equal=_CONTROL),)),
    "mmap": (9, 222, (Only(2, none_of=_PROT_EXEC), Only(3, any_of=_MAP_ANONYMOUS))),
    "munmap": (11, 215, ()),
    "mremap": (25, 216, ()),
    "mprotect": (10, 226, (Only(2, none_of=_PROT_EXEC),)),
    "madvise": (28, 233, ()),
    "brk": (12, 214, ()),
    "close": (3, 57, ()),
    "getrusage": (98, 165, ()),
    "prlimit64": (302, 261, (Only(0, equal=0), Only(1, equal=_RLIMIT_CPU))),
    "write": (1, 64, (Only(0, equal=_STDERR),)),  # which is /dev/null
    "gettimeofday": (96, 169, ()),
    "clock_nanosleep": (230, 115, ()),
    "nanosleep": (35, 101, ()),
    "restart_syscall": (219, 128, ()),
    "rt_sigreturn": (15, 139, ()),
    "sched_yield": (24, 124, ()),
    "getrandom": (318, 278, ()),
    "getpid": (39, 172, ()),
    "gettid": (186, 178, ()),
    "exit": (60, 93, ()),
    "exit_group": (231, 94, ()),
}

Instruction = tuple[int, int, int, int]


def program(machine: Machine) -> bytes:
    """The filter for an architecture, ready for the kernel."""
    return b"".join(struct.pack("=HBBI", *one) for one in _instructions(machine))


def here() -> Machine | None:
    """The architecture of this process, or None if its numbers are not known."""
    return MACHINES.get(os.uname().machine) if struct.calcsize("P") == 8 else None


def _instructions(machine: Machine) -> Iterator[Instruction]:
    yield LOAD, 0, 0, ARCHITECTURE
    yield EQUAL, 1, 0, machine.audit
    yield RETURN, 0, 0, KILL
    yield LOAD, 0, 0, NUMBER
    for *numbers, conditions in CALLS.values():
        block = [one for each in conditions for one in _condition(each)]
        block.append((RETURN, 0, 0, ALLOW))
        yield EQUAL, 0, len(block), numbers[machine.column]
        yield from block
    yield RETURN, 0, 0, REFUSE


def _condition(only: Only) -> Iterator[Instruction]:
    """Refuse, or go on behind."""
    yield LOAD, 0, 0, ARGUMENTS + 8 * only.argument
    if only.equal is not None:
        yield EQUAL, 1, 0, only.equal
    elif only.none_of:
        yield ANY_BIT, 0, 1, only.none_of
    else:
        yield ANY_BIT, 1, 0, only.any_of
    yield RETURN, 0, 0, REFUSE
