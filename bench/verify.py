"""Verifying an export of the ledger, beside hashing its lines and doing nothing else.

What is timed is the command that an auditor runs, `archive ledger verify`, from its start to its
end. The export holds a million entries in the mix of `bench.entries`, and was signed by a real key.
"""

import asyncio
import hashlib
import os
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from archive import merkle
from archive.note import Checkpoint
from bench import entries
from bench.report import Figure
from bench.stack import ROOT, Stack
from bench.uploads import alternate
from storage.signer import Signer

COUNT = 1_000_000
ROUNDS = 3


async def measure(stack: Stack) -> list[Figure]:
    """Entries a second."""
    path = stack.folder / "ledger.txt"
    began = time.perf_counter()
    count, key = await asyncio.to_thread(_export, path, stack.folder / "signer")
    print(f"  {count} entries written in {time.perf_counter() - began:.0f} s", flush=True)

    async def here() -> float:
        began = time.perf_counter()
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "app", "--config", str(ROOT / "config.toml")),
            *("ledger", "verify", str(path), "--key", key),
            stdout=asyncio.subprocess.DEVNULL,
        )
        if await process.wait():
            raise RuntimeError("the export does not hold")
        return count / (time.perf_counter() - began)

    async def hashed() -> float:
        began = time.perf_counter()
        with path.open("rb") as file:
            for line in file:
                hashlib.sha256(line).digest()
        return count / (time.perf_counter() - began)

    ours, limit = await alternate(ROUNDS, here, hashed)
    await asyncio.to_thread(os.unlink, path)
    what = f"ledger verify of {count:,} entries / SHA-256 of its lines"
    return [Figure.beside_limit(what, "entries/s", ours, limit, value_least=300_000)]


def _export(path: Path, keys: Path) -> tuple[int, str]:
    """Write an export as `archive ledger export` does; how many entries, and the public key."""
    keys.mkdir(mode=0o700)
    signer = Signer.open(keys, "call-archive/bench", create=True)
    leaves = []
    with path.open("wb") as out:
        for entry in entries.Story(COUNT, datetime.now(UTC)).entries():
            text = entry.text
            leaves.append(merkle.leaf_hash(text))
            out.write(text + b"\n")
        growth = merkle.growth_over(leaves)
        note = signer.sign(growth.size, growth.root, 0, [])
        assert note and Checkpoint.parse(note.text).size == len(leaves)
        out.write(b"\n" + str(note).encode())
    return len(leaves), str(signer.verifier)
