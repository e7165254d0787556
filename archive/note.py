"""Checkpoints of the ledger as signed notes: the formats of C2SP, tlog-checkpoint and signed-note.

A checkpoint says how large the ledger is and what its root is, in three lines: the log's name
(`origin`), the number of entries, the root in base64. A note is such a text and the signatures
under it, each on a line of its own: `— name base64(key id | signature)`. A key is told to others as
`name+key id+base64(type | key)`. Making and checking the signatures themselves is not done here.

https://c2sp.org/signed-note and https://c2sp.org/tlog-checkpoint
"""

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass

ED25519, COSIGNATURE = 1, 4
"""What a key signs with: the text itself, or (a witness) the text with the time ahead of it."""

_MARK = "— "


class NoteError(ValueError):
    """This is no note, no checkpoint or no key; the message says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Verifier:
    """A public key: its name, what it signs with, and its 32 bytes."""

    name: str
    kind: int
    public: bytes

    @property
    def id(self) -> bytes:
        """The 4 bytes by which a signature names its key."""
        material = self.name.encode() + b"\n" + bytes([self.kind]) + self.public
        return hashlib.sha256(material).digest()[:4]

    def __str__(self) -> str:
        key = base64.b64encode(bytes([self.kind]) + self.public).decode()
        return f"{self.name}+{self.id.hex()}+{key}"

    @classmethod
    def parse(cls, text: str) -> "Verifier":
        """Read `name+key id+key`. Raises NoteError if it is not one, or its id is another key's."""
        parts = text.strip().split("+", 2)
        if len(parts) != 3 or not _is_name(parts[0]):
            raise NoteError("A public key looks like name+0a1b2c3d+AbCd...=.")
        key = _decoded(parts[2])
        if len(key) != 33 or key[0] not in (ED25519, COSIGNATURE):
            raise NoteError("The public key is not one of Ed25519.")
        found = cls(parts[0], key[0], key[1:])
        if found.id.hex() != parts[1]:
            raise NoteError("The public key does not belong to the id in front of it.")
        return found


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature: the name of its key, the key's id, and the bytes."""

    name: str
    key_id: bytes
    value: bytes


@dataclass(frozen=True, slots=True)
class Note:
    """A text that ends with a newline, and the signatures under it."""

    text: str
    signatures: tuple[Signature, ...] = ()

    def __str__(self) -> str:
        lines = [
            f"{_MARK}{each.name} {base64.b64encode(each.key_id + each.value).decode()}\n"
            for each in self.signatures
        ]
        return f"{self.text}\n{''.join(lines)}"

    @classmethod
    def parse(cls, content: str) -> "Note":
        """Read a note. Raises NoteError."""
        text, gap, rest = content.rpartition("\n\n")
        if not gap or not rest.endswith("\n") or re.search(r"[\x00-\x09\x0b-\x1f]", text):
            raise NoteError("This is not a signed note.")
        return cls(text + "\n", tuple(_signature(line) for line in rest[:-1].split("\n")))

    def by(self, verifier: Verifier) -> Signature:
        """The signature that says to be this key's. Raises NoteError if there is none."""
        for each in self.signatures:
            if (each.name, each.key_id) == (verifier.name, verifier.id):
                return each
        raise NoteError(f"The note is not signed by {verifier.name}.")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The ledger at one moment: its name, how many entries it has, and their root."""

    origin: str
    size: int
    root: bytes

    @property
    def text(self) -> str:
        """What is signed."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"

    @classmethod
    def parse(cls, text: str) -> "Checkpoint":
        """Read the text of a note. Raises NoteError. Lines behind the third are left alone."""
        lines = text.split("\n")
        if len(lines) < 4 or not lines[0] or not re.fullmatch("0|[1-9][0-9]{0,17}", lines[1]):
            raise NoteError("The note is not a checkpoint.")
        root = _decoded(lines[2])
        if len(root) != 32:
            raise NoteError("The checkpoint's root is not 32 bytes.")
        return cls(lines[0], int(lines[1]), root)


def _signature(line: str) -> Signature:
    name, gap, value = line.removeprefix(_MARK).partition(" ")
    decoded = _decoded(value)
    if not line.startswith(_MARK) or not gap or not _is_name(name) or len(decoded) < 5:
        raise NoteError("A signature of the note cannot be read.")
    return Signature(name, decoded[:4], decoded[4:])


def _is_name(text: str) -> bool:
    return bool(text) and not re.search(r"[\s+]", text)


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise NoteError("What should be base64 is not.") from error
