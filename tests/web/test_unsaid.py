"""What cannot be read as HTTP is quoted by aiohttp's errors: no log line and no answer may repeat
it, and the answer is a problem document like any other.
"""

import asyncio
import json
import logging

import pytest
import yarl

from tests.services import Service

SECRET = b"cra_0123456789ab_secret"


@pytest.mark.parametrize(
    "request_text",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + SECRET + b"\x00\r\n\r\n",
        b"GET /v1/recordings?agent=" + SECRET + b"x" * 70000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n" + SECRET + b"\r\n\r\n",
        b"PUT /v1/recordings/c HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n."
        + SECRET
        + b"\r\n",
    ],
    ids=["token", "address", "header", "too much"],
)
async def test_a_request_that_cannot_be_read_is_repeated_nowhere(
    service: Service, caplog: pytest.LogCaptureFixture, request_text: bytes
) -> None:
    caplog.set_level(logging.DEBUG, "archive.http")
    door = yarl.URL(service.retrieval)
    reader, writer = await asyncio.open_connection(door.host, door.port)
    writer.write(request_text)
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    head, _, body = answer.rpartition(b"\r\n\r\n")
    refusal = head[head.rindex(b"HTTP/1.") :]  # after the answer to what could be read, if any
    assert b" 400 " in refusal.splitlines()[0]
    assert b"application/problem+json" in refusal
    assert json.loads(body)["type"] == "urn:call-archive:problem:malformed"
    assert SECRET not in answer
    assert "a request could not be read" in caplog.text
    assert SECRET.decode() not in caplog.text
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []
