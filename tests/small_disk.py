"""A disk so small that a test fills it."""

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SIZE = 512 << 10


@contextmanager
def small_disk(place: Path) -> Iterator[bool]:
    """Let a new folder be a disk of 512 KiB; whether it is a real one.

    That needs root. Else writing to it fails as the system would tell of it, once a file by itself
    is too long.
    """
    place.mkdir(mode=0o700)
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(place)]
    if os.geteuid() == 0 and subprocess.run(command, capture_output=True).returncode == 0:
        try:
            yield True
        finally:
            subprocess.run(["umount", "--lazy", str(place)], check=True)
        return
    real = os.write

    def write(descriptor: int, piece: bytes | bytearray | memoryview) -> int:
        held = os.readlink(f"/proc/self/fd/{descriptor}")
        if held.startswith(str(place)) and os.fstat(descriptor).st_size + len(piece) > SIZE:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(descriptor, piece)

    os.write = write
    try:
        yield False
    finally:
        os.write = real
