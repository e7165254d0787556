"""An archive that fails on purpose, for the client's tests: real HTTP, written from the contract.

It stores what is PUT as the contract says, unless a fault was queued; each request takes the next
one. It notes every request, so that a test can see what a client sent, and what it did not.
"""

import argparse
import asyncio
import base64
import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web
from multidict import CIMultiDict

from app import client, import_commands, records, watch_commands

TOKEN = "test-token-of-nobody"

Fault = Callable[[web.Request], Awaitable[web.StreamResponse | None]]


@dataclass(slots=True)
class Seen:
    """One request: `body` counts the bytes that were read of it."""

    method: str
    raw_path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: int = 0


@dataclass(slots=True)
class Faulty:
    url: str = ""
    faults: list[Fault] = field(default_factory=list)
    before: list[web.Response] = field(default_factory=list)
    """Answers instead of `100 Continue`."""
    seen: list[Seen] = field(default_factory=list)
    kept: dict[str, tuple[str, dict[str, str]]] = field(default_factory=dict)
    order: list[str] = field(default_factory=list)
    pages: dict[str, dict[str, Any]] = field(default_factory=dict)
    audio: bytes = b""
    etag: str | None = None

    async def put(self, request: web.Request) -> web.StreamResponse:
        seen = self.note(request)
        if self.faults and (answer := await self.faults.pop(0)(request)) is not None:
            return answer
        digest = hashlib.sha256()
        async for piece in request.content.iter_any():
            digest.update(piece)
            seen.body += len(piece)
        announced = base64.b64encode(digest.digest()).decode()
        assert request.headers["Content-Digest"] == f"sha-256=:{announced}:"
        call_id = request.match_info["call_id"]
        here = self.kept.get(call_id)
        if here and here[0] != digest.hexdigest():
            return problem(409, "This call is here already, and it is not the same")
        self.kept[call_id] = (digest.hexdigest(), dict(request.query))
        self.order.append(call_id)
        receipt = {
            "id": "019ab3c4-5d6e-7f80-9123-456789abcdef",
            "call_id": call_id,
            "expires_at": "2027-11-24T09:30:00+02:00",
            "sha256": digest.hexdigest(),
            "bytes": seen.body,
        }
        return web.json_response(receipt, status=200 if here else 201)

    async def find(self, request: web.Request) -> web.StreamResponse:
        self.note(request)
        if self.faults and (answer := await self.faults.pop(0)(request)) is not None:
            return answer
        return web.json_response(self.pages[request.query.get("cursor", "")])

    async def hear(self, request: web.Request) -> web.StreamResponse:
        self.note(request)
        if self.faults and (answer := await self.faults.pop(0)(request)) is not None:
            return answer
        return self.answer_audio(request)

    def answer_audio(self, request: web.Request) -> web.Response:
        headers = {"Sunset": "Wed, 24 Nov 2027 07:30:00 GMT"}
        if "format" in request.query:
            return web.Response(body=self.audio, headers=headers, content_type="audio/mpeg")
        etag = self.etag or f'"{hashlib.sha256(self.audio).hexdigest()}"'
        headers["ETag"] = etag
        span = request.headers.get("Range")
        if span and request.headers.get("If-Range") == etag:
            start = int(span.removeprefix("bytes=").removesuffix("-"))
            headers["Content-Range"] = f"bytes {start}-{len(self.audio) - 1}/{len(self.audio)}"
            return web.Response(status=206, body=self.audio[start:], headers=headers)
        return web.Response(body=self.audio, headers=headers, content_type="audio/x-wav")

    def note(self, request: web.Request) -> Seen:
        seen = Seen(request.method, request.raw_path, dict(request.query), dict(request.headers))
        self.seen.append(seen)
        return seen

    async def expect(self, request: web.Request) -> web.StreamResponse | None:
        if self.before:
            self.note(request)
            response = self.before.pop(0)
            response.force_close()
            return response
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0
        return None


@asynccontextmanager
async def faulty() -> AsyncIterator[Faulty]:
    """A failing archive on a free port, with all doors at one address."""
    archive = Faulty()
    app = web.Application(client_max_size=2**30)
    path = "/v1/recordings"
    app.router.add_put(path + "/{call_id}", archive.put, expect_handler=archive.expect)
    app.router.add_get(path, archive.find)
    app.router.add_get(path + "/{id}/audio", archive.hear)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    archive.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield archive
    finally:
        await runner.cleanup()


@asynccontextmanager
async def garbage() -> AsyncIterator[str]:
    """The address of something that listens and speaks no HTTP."""

    async def speak(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(speak, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        yield f"http://{host}:{port}"


def problem(status: int, title: str, retry_after: str | None = None, **more: Any) -> web.Response:
    body = {"type": "urn:x", "title": title, "status": status, "detail": "Do this then.", **more}
    headers = {"Retry-After": retry_after} if retry_after is not None else {}
    return web.Response(
        status=status,
        text=json.dumps(body),
        content_type="application/problem+json",
        headers=headers,
    )


def answers(response: web.Response) -> Fault:
    """A fault: the body is read, and then this."""

    async def fault(request: web.Request) -> web.StreamResponse:
        async for _ in request.content.iter_any():
            pass
        # A response is sent once; what is queued several times is answered each time.
        said, body = CIMultiDict(response.headers), response.body
        return web.Response(status=response.status, reason=response.reason, body=body, headers=said)

    return fault


async def cut(request: web.Request) -> web.StreamResponse:
    """A fault: some bytes are read, then the connection is cut."""
    await request.content.readany()
    assert request.transport is not None
    request.transport.abort()
    await asyncio.sleep(0)
    return web.Response()


async def hang(request: web.Request) -> web.StreamResponse:
    """A fault: the body is read, and then nothing is ever said."""
    async for _ in request.content.iter_any():
        pass
    await asyncio.sleep(3600)
    raise AssertionError


class Shell:
    """Runs the client's commands as a shell does: arguments in, status and output out."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys
        self.out = self.err = ""

    async def __call__(self, *words: object) -> int:
        parser = argparse.ArgumentParser()
        commands = parser.add_subparsers()
        client.add_parsers(commands)
        watch_commands.add_parsers(commands)
        records.add_parsers(commands)
        import_commands.add_parsers(commands)
        try:
            options = parser.parse_args([str(word) for word in words])
            status = await options.run(options)
        except SystemExit as ended:
            status = ended.code
        self.out, self.err = self.capsys.readouterr()
        return int(status)

    @property
    def facts(self) -> Any:
        return json.loads(self.out)
