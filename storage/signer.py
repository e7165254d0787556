"""The ledger's signing key, and the memory of what it signed last.

The key lies in a file of the key store, where who owns the database cannot read it. Beside it lies
the last checkpoint that was signed. A further one is signed only with a proof that its tree goes on
from that one: whoever rewrites the database, or puts an old one back, gets no signature for it, and
the service says so.
"""

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from archive import merkle, note
from archive.merkle import ProofError
from archive.note import Checkpoint, Note, NoteError, Signature, Verifier
from storage import durable


class SignerError(RuntimeError):
    """The signing key or its last checkpoint cannot be used; the message says what to do."""


class RewrittenError(SignerError):
    """The ledger is not a continuation of what was signed: it was rewritten, or is an older one."""


class Signer:
    """The signing key of one archive's ledger; made by `open`. Any process of it may sign."""

    def __init__(self, directory: Path, origin: str, key: Ed25519PrivateKey) -> None:
        self.directory = directory
        self._signed = directory / "ledger.checkpoint"
        self._key = key
        self.verifier = Verifier(origin, note.ED25519, key.public_key().public_bytes_raw())

    @classmethod
    def open(cls, directory: Path, origin: str, *, create: bool, keep: bool = True) -> "Signer":
        """Read the key, or make one if `create` and there is none and nothing was signed yet; it is
        written down only if `keep`. Of several processes that start at once one makes it.

        Raises SignerError when it is missing or is no key.
        """
        path = directory / "ledger.key"
        try:
            if create and _is_new(directory):
                made = Ed25519PrivateKey.generate()
                if not keep:
                    return cls(directory, origin, made)
                with _locked(directory):
                    if _is_new(directory):
                        new = directory / "ledger.key.new"
                        durable.write(new, _pem(made))
                        durable.rename(new, path)
            key = load_pem_private_key(path.read_bytes(), None)
        except FileNotFoundError:
            raise SignerError(
                f"there is no ledger key at {path}: restore it with the key ring"
            ) from None
        except (OSError, ValueError, TypeError) as error:
            raise SignerError(f"the ledger key {path} cannot be used: {error}") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise SignerError(f"the ledger key {path} is not one of Ed25519")
        return cls(directory, origin, key)

    @property
    def origin(self) -> str:
        """The ledger's name, which is its key's too."""
        return self.verifier.name

    def last(self) -> Checkpoint | None:
        """What was signed last. Raises SignerError when the file is not what was written."""
        signed = self.last_note()
        return Checkpoint.parse(signed.text) if signed else None

    def last_note(self) -> Note | None:
        """The same with its signature."""
        try:
            signed = Note.parse(self._signed.read_text("utf-8"))
            check(signed, self.verifier)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise SignerError(
                f"{self._signed} is not the checkpoint that was signed last: {error}"
            ) from error
        return signed

    def sign(self, size: int, root: bytes, since: int, proof: Sequence[bytes]) -> Note | None:
        """Sign a tree that goes on from the last one, of `since` entries, as `proof` shows.

        None when another signed meanwhile: then the proof begins at the wrong place. Raises
        RewrittenError when the tree does not go on from the last one.
        """
        with _locked(self.directory):
            last = self.last() or Checkpoint(self.origin, 0, merkle.EMPTY)
            if last.size != since:
                return None
            try:
                merkle.check_consistency(last.size, last.root, size, root, proof)
            except ProofError as error:
                raise RewrittenError(
                    f"the ledger of the database ({size} entries) does not go on from the one that"
                    f" was signed last ({last.size} entries): {error}"
                ) from error
            if size == last.size and (known := self.last_note()):
                return known
            return self._write(Checkpoint(self.origin, size, root))

    def _write(self, checkpoint: Checkpoint) -> Note:
        value = self._key.sign(checkpoint.text.encode())
        signed = Note(checkpoint.text, (Signature(self.origin, self.verifier.id, value),))
        new = self._signed.with_name(self._signed.name + ".new")
        durable.write(new, str(signed).encode())
        durable.rename(new, self._signed)
        return signed


def _is_new(directory: Path) -> bool:
    """Whether there is no key, and nothing was signed by one that would be lost."""
    return not any((directory / name).exists() for name in ("ledger.key", "ledger.checkpoint"))


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Let one process at a time make the key, or sign."""
    lock = directory / "ledger.lock"
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise SignerError(f"{lock} cannot be used: {error}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def check(signed: Note, verifier: Verifier) -> Checkpoint:
    """The checkpoint in a note. Raises NoteError unless this key signed it, for this log."""
    if verifier.kind != note.ED25519:
        raise NoteError(f"{verifier.name} is not a key that signs checkpoints.")
    try:
        public = Ed25519PublicKey.from_public_bytes(verifier.public)
        public.verify(signed.by(verifier).value, signed.text.encode())
    except InvalidSignature:
        raise NoteError(f"The signature of {verifier.name} does not belong to this text.") from None
    checkpoint = Checkpoint.parse(signed.text)
    if checkpoint.origin != verifier.name:
        raise NoteError(f"The checkpoint is of {checkpoint.origin}, not of {verifier.name}.")
    return checkpoint


def _pem(key: Ed25519PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
