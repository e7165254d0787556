"""The head of an object, read out of the store: what the object says that it is."""

from archive.errors import UnavailableError
from storage.holdings import Holding
from storage.sealing import HEADER, DamagedError, details_length
from storage.vault import Vault

HEAD = 4096
"""Bytes in which the head of nearly every object lies whole."""


async def read(vault: Vault, holding: Holding) -> tuple[bytes, bytes, int]:
    """An object's header and sealed details, and its whole length in bytes.

    Raises DamagedError for what has no head, MissingObjectError and UnavailableError.
    """
    if holding.size < 0:
        raise UnavailableError("The object store's list does not say how long the objects are.")
    if holding.size < HEADER:
        raise DamagedError("the object is shorter than a header")
    stop = min(HEAD, holding.size)
    head = await _get(vault, holding.key, 0, stop)
    header = head[:HEADER]
    end = HEADER + details_length(header)
    if end > stop:
        head += await _get(vault, holding.key, stop, min(end, holding.size))
    return header, head[HEADER:end], holding.size


async def _get(vault: Vault, key: str, start: int, stop: int) -> bytes:
    async with vault.objects.get(key, start, stop) as pieces:
        return b"".join([piece async for piece in pieces])
