"""The root file: what seals the key ring.

It has two places of one line each. One holds the root in base64, the other is wiped; only while the
root is changed do both hold one. They are overwritten where they lie: a new file would leave the
old root behind in what the disk calls free. A place that was only half written holds no root.
"""

import base64
import binascii
import secrets
from pathlib import Path

from storage import durable

_KEY = 32
_PLACE = 45
_WIPED = b"-" * (_PLACE - 1) + b"\n"


class RootFile:
    """A root file. Each call raises OSError when it is not there or cannot be used."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def create(self, root: bytes) -> None:
        """Make the file, with one root."""
        new = self.path.with_name(self.path.name + ".new")
        durable.write(new, _line(root) + _WIPED)
        durable.rename(new, self.path)

    def roots(self) -> list[bytes]:
        """The root, or the two of a change that is not finished."""
        return [root for text in self._places() if (root := _root(text)) is not None]

    def add(self, root: bytes) -> None:
        """Put a second root beside the one there is."""
        free = [_root(text) for text in self._places()].index(None)
        durable.overwrite(self.path, free * _PLACE, _line(root))

    def keep(self, root: bytes, *, again: bool = False) -> None:
        """Wipe everything but this root: other roots, and what is left of one half wiped. `again`:
        also what reads as wiped. After a sync that failed it does, and the disk may have the root.
        """
        kept = False
        for number, text in enumerate(self._places()):
            if _root(text) == root and not kept:
                kept = True
            elif again or text.strip(b"-"):
                durable.overwrite(self.path, number * _PLACE, _WIPED)

    def _places(self) -> list[bytes]:
        text = self.path.read_bytes()
        return [text[at : at + _PLACE - 1] for at in (0, _PLACE)]


def new_root() -> bytes:
    """A random root."""
    return secrets.token_bytes(_KEY)


def _line(root: bytes) -> bytes:
    return base64.b64encode(root) + b"\n"


def _root(text: bytes) -> bytes | None:
    try:
        root = base64.b64decode(text, validate=True)
    except binascii.Error:
        return None
    return root if len(root) == _KEY else None
