"""Files that are wholly there or not at all, and stay there when the machine stops."""

import os
from pathlib import Path


def make_directory(path: Path) -> None:
    """Make a directory for its owner alone, and those above it; they outlive a crash."""
    if path.is_dir():
        return
    make_directory(path.parent)
    path.mkdir(mode=0o700, exist_ok=True)
    sync_directory(path.parent)


def write(path: Path, content: bytes) -> None:
    """Write a new file for its owner alone in the place of any other, and sync it."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def rename(source: Path, target: Path) -> None:
    """Put a file in the place of another, at one stroke, and sync the directory."""
    source.replace(target)
    sync_directory(target.parent)


def overwrite(path: Path, position: int, content: bytes) -> None:
    """Overwrite bytes where they lie, and sync them."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.pwrite(descriptor, content, position)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_directory(path: Path) -> None:
    """See to it that the names in a directory outlive a crash."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
