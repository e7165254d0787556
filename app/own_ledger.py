"""What the auditor's commands take from the archive of this configuration: its ledger as a file,
and its key for who has been given none.

A key that an archive tells of itself proves a file against that archive alone: whoever rewrote its
ledger and has its signing key would pass. So it is said each time that it was taken.
"""

import argparse
import os
import sys
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from app import config
from archive.note import Checkpoint

if TYPE_CHECKING:
    from storage.vault import Vault

_OWN = (
    "archive: checked by this archive's own key, {}. That shows nothing of an archive which was"
    " rewritten together with its key: name one that was kept elsewhere with --key."
)


class UncheckedError(ValueError):
    """Nothing was shown, for or against: the file or the key that was named cannot be read."""


async def write(vault: "Vault", file: Path) -> int:
    """Write all entries and a signed checkpoint, wholly or not at all; how many entries."""
    from storage import durable, tree
    from storage.database import connection

    note = await tree.checkpoint(vault)
    size = Checkpoint.parse(note.text).size
    new = file.with_name(file.name + ".new")
    try:
        with new.open("wb") as out:
            async with connection(vault.pool) as lent, lent.transaction():
                async for entry in tree.everything(lent, size):
                    out.write(entry.text + b"\n")
            out.write(b"\n" + str(note).encode())
            out.flush()
            os.fsync(out.fileno())
        durable.rename(new, file)
    finally:
        new.unlink(missing_ok=True)
    return size


@asynccontextmanager
async def at_hand(arguments: argparse.Namespace) -> AsyncIterator[tuple[Path, str]]:
    """The file that is to be checked, and the key: those that were named, else this archive's own.

    Where both were named nothing else is needed, and no configuration is read. Raises
    UncheckedError for a file that cannot be read.
    """
    file, key = arguments.file, arguments.key
    if file:
        try:
            file.open("rb").close()
        except OSError as error:
            raise UncheckedError(f"{file} cannot be read: {error.strerror}") from None
    if file and key:
        yield file, key
        return
    from app.vault import opened

    loaded = config.load(arguments.config, os.environ)
    with ExitStack() as stack:
        async with opened(loaded, join=True, whole=file is None) as vault:
            if file is None:
                # Not in /tmp, which is the memory where the archive runs in a container.
                kept = TemporaryDirectory(prefix="ledger-", dir=loaded.server.data_dir)
                file = Path(stack.enter_context(kept)) / "ledger.txt"
                await write(vault, file)
            if key is None:
                key = str(vault.signer.verifier)
                print(_OWN.format(key), file=sys.stderr)
        yield file, key
