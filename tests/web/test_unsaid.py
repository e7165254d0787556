"""What cannot be read as HTTP is quoted by aiohttp's errors: no log line may repeat it."""

import asyncio

import pytest
import yarl

from tests.services import Service

SECRET = b"cra_0123456789ab_secret"


@pytest.mark.parametrize(
    "request_text",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + SECRET + b"\x00\r\n\r\n",
        b"GET /v1/recordings?agent=" + SECRET + b"x" * 70000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
)
async def test_a_request_that_cannot_be_read_is_not_repeated_in_the_log(
    service: Service, caplog: pytest.LogCaptureFixture, request_text: bytes
) -> None:
    door = yarl.URL(service.retrieval)
    reader, writer = await asyncio.open_connection(door.host, door.port)
    writer.write(request_text)
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    assert b" 400 " in answer.splitlines()[0]
    assert "a request could not be read" in caplog.text
    assert SECRET.decode() not in caplog.text
