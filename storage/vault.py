"""The vault: everything that the verbs need to move a recording, in one hand.

It is made once, by `app.serve` or a command, and passed to every verb as its first argument.
"""

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Protocol

from archive.listening import USUAL, Rules
from archive.retention import Policy
from storage.audio.pool import AudioPool
from storage.database import Pool
from storage.keyring import Ring
from storage.objects import ObjectStore
from storage.passwords import Passwords
from storage.shelf import Shelf
from storage.signer import Signer


@dataclass(frozen=True, slots=True)
class Limits:
    """What one upload may be, and how many are taken in at once. `max_bytes` in bytes,
    `max_duration` in seconds.

    `expected_within`: how soon after a call's end its recording ought to be here.
    """

    max_bytes: int
    max_duration: float
    allowed_formats: frozenset[str]
    max_concurrent: int = 64
    expected_within: timedelta = timedelta(hours=1)


class LedgerParts(Protocol):
    """What a look at the ledger needs of the vault: `archive check` has no more, and makes none."""

    @property
    def pool(self) -> Pool: ...
    @property
    def objects(self) -> ObjectStore: ...
    @property
    def ring(self) -> Ring: ...
    @property
    def signer(self) -> Signer: ...


@dataclass(frozen=True, slots=True)
class Vault:
    """Database, object store, keys and the processes that decode; and the rules they serve.

    `pool` works as the role of the part of the service whose vault this is, `sequencer` as the one
    that may add to the ledger, `sign_in` as the one that lets people in (`storage.roles`). `probes`
    tell what arrived, `players` encode for listeners: a long listen never holds up an upload.
    `spool` is the directory of the unnamed files that hold a body while it is taken in, `intakes`
    counts those of each key, `shelf` keeps the uploads that come in parts. `publishing` is held by
    who puts entries of the ledger into the store: two who put one bundle at once would hinder each
    other at some stores.
    """

    pool: Pool
    sequencer: Pool
    sign_in: Pool
    objects: ObjectStore
    ring: Ring
    signer: Signer
    probes: AudioPool
    players: AudioPool
    policy: Policy
    limits: Limits
    spool: Path
    intakes: Counter[str]
    shelf: Shelf
    listening: Rules = USUAL
    passwords: Passwords = field(default_factory=Passwords)
    publishing: asyncio.Lock = field(default_factory=asyncio.Lock)
