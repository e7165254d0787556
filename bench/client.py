"""The load client, a process of its own: the same code drives the archive and what stands beside.

It reads one job a line (JSON) on stdin and answers each with one line. A job is a list of requests
that differ in their address alone, sent so many at a time. All bodies are in memory before the
clock starts, and every answer is read to its end and its status and length checked.
"""

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import uvloop
from yarl import URL

_WHOLE = 1 << 20
"""Bytes up to which a body is given to aiohttp in one piece."""

_PIECE = 1 << 18

_bodies: dict[str, bytes] = {}


def _body(path: str | None) -> bytes:
    if path is None:
        return b""
    if path not in _bodies:
        _bodies[path] = Path(path).read_bytes()
    return _bodies[path]


async def _pieces(body: bytes) -> AsyncIterator[memoryview]:
    view = memoryview(body)
    for start in range(0, len(view), _PIECE):
        yield view[start : start + _PIECE]


class Job:
    """One batch of requests and what was seen of their answers; times in seconds."""

    def __init__(self, session: aiohttp.ClientSession, job: dict[str, Any]) -> None:
        self._session = session
        self._method = job["method"]
        self._urls = [URL(url, encoded=True) for url in job["urls"]]
        self._body = _body(job.get("body"))
        self._headers = dict(job.get("headers", {}))
        if job.get("body"):
            self._headers["Content-Length"] = str(len(self._body))
        self._statuses = job["statuses"]
        self._at_once = job["at_once"]
        self._keep = job.get("keep", False)
        self._times = [0.0] * len(self._urls)
        self._first = [0.0] * len(self._urls)
        self._bytes = 0
        self._answers: list[str] = [""] * len(self._urls) if self._keep else []
        self._wrong: list[str] = []

    async def run(self) -> dict[str, Any]:
        left = iter(range(len(self._urls)))

        async def work() -> None:
            for number in left:
                await self._one(number)

        began = time.perf_counter()
        await asyncio.gather(*(work() for _ in range(self._at_once)))
        return {
            "seconds": time.perf_counter() - began,
            "times": self._times,
            "first": self._first,
            "bytes": self._bytes,
            "answers": self._answers,
            "wrong": self._wrong[:3],
        }

    async def _one(self, number: int) -> None:
        body = self._body or None
        data = _pieces(self._body) if body and len(self._body) > _WHOLE else body
        began = time.perf_counter()
        try:
            async with self._session.request(
                self._method, self._urls[number], data=data, headers=self._headers
            ) as answer:
                await self._read(number, answer, began)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            self._wrong.append(repr(error))
        self._times[number] = time.perf_counter() - began

    async def _read(self, number: int, answer: aiohttp.ClientResponse, began: float) -> None:
        got = bytearray()
        size = 0
        async for piece in answer.content.iter_any():
            if not size:
                self._first[number] = time.perf_counter() - began
            size += len(piece)
            if self._keep or answer.status not in self._statuses:
                got += piece
        self._bytes += size
        if answer.status not in self._statuses:
            self._wrong.append(f"{answer.status} {bytes(got[:300])!r}")
        elif self._keep:
            self._answers[number] = got.decode()


async def main() -> None:
    """Do jobs until stdin ends."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=1 << 28)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        timeout=aiohttp.ClientTimeout(total=None, sock_read=600),
        read_bufsize=1 << 18,
        skip_auto_headers=("Content-Type",),
        headers={"Accept-Encoding": "identity"},
    ) as session:
        while line := await reader.readline():
            result = await Job(session, json.loads(line)).run()
            sys.stdout.write(json.dumps(result) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    uvloop.run(main())
