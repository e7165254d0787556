"""One connection of a door, below the routes: what aiohttp itself has no limit for, and answers
that it would make by itself.

aiohttp parses, and hands requests to the door; here is counted what comes in on the wire, and each
second is looked whether it comes as it should (`limits`). What cannot be read as HTTP, or fails
outside the middlewares, is answered like every other error: aiohttp's own answer is no problem
document, and quotes what was sent.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from aiohttp import EMPTY_PAYLOAD, StreamReader, hdrs, web
from aiohttp.http import HttpProcessingError, RawRequestMessage
from aiohttp.http_exceptions import BadHttpMessage
from aiohttp.web_protocol import _ErrInfo

from archive.errors import ArchiveError, MalformedError, UnavailableError
from web import headers, limits, problems, trace
from web.limits import Crowd, Pace

log = logging.getLogger("archive.web")

_Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

LOOK = 1.0
"""Seconds between two looks at all connections."""

PIECE = 2**12
"""Bytes of a head, or of a body in chunks, that are parsed before it is looked what they are: a
flood of tiny ones costs far more time and memory than it has bytes."""


def _unsaid(record: logging.LogRecord) -> bool:
    """Let no log line of aiohttp's say what was sent: its errors quote addresses and tokens.

    Nor may a sender who vanishes or sends what is not HTTP wake anybody: that is no error of ours.
    """
    kind = record.exc_info and record.exc_info[0]
    if kind:
        record.msg, record.args = "a request could not be read: %s", (kind.__name__,)
        record.exc_info = None
        if issubclass(kind, (ConnectionError, HttpProcessingError)):
            record.levelno = min(record.levelno, logging.WARNING)
            record.levelname = logging.getLevelName(record.levelno)
    return True


LOG = logging.getLogger("archive.http")
LOG.addFilter(_unsaid)


class Connection(web.RequestHandler):
    """One connection, and what has come in on it."""

    def __init__(self, crowd: Crowd, manager: web.Server, **arguments: Any) -> None:
        super().__init__(manager, **arguments)
        self._crowd = crowd
        self._body: StreamReader = EMPTY_PAYLOAD
        self._length = 0
        self._wire = 0
        self._deaf = False
        self._head_since: float | None = None
        self._untaken_since: float | None = None
        self._since = self._loop.time()
        self._pace = Pace(self._since)
        self.address = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Let it in, or end it."""
        super().connection_made(transport)
        peer = transport.get_extra_info("peername")
        self.address = self._crowd.limits.counted(peer[0] if isinstance(peer, tuple) else None)
        if not self._crowd.enter(self):
            self.cut()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Make room for others."""
        self._crowd.leave(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what comes in, by the piece; what is left of a body with a length is one."""
        at, more = 0, True
        while more and not self._deaf:
            left = 0 if self._body.is_eof() else self._length - self._body.total_bytes
            end = at + max(PIECE, left)
            self._take(data[at:end])
            at, more = end, end < len(data)

    def _take(self, data: bytes) -> None:
        """Count what comes in: of a head, or around a body."""
        before, of_body = len(self._messages), not self._body.is_eof()
        super().data_received(data)
        self._wire += len(data)
        if len(self._messages) > before:
            head, following = self._messages[-1]
            if of_body and isinstance(head, _ErrInfo):
                # Whoever reads the body would wait for the rest of it.
                self._messages.pop()
                self._refuse(MalformedError("What follows the head is no body of HTTP."))
            else:
                self._begin(head, following)
        elif not self._body.is_eof():
            # While reading is paused, some of it is not looked through yet.
            parsed = not self._reading_paused
            if parsed and limits.wrapped_too_much(self._wire, self._body.total_bytes):
                self._crowd.flooded(self, "floods around bodies")
                self._refuse(MalformedError("The body has far more around it than is in it."))
        elif of_body:
            self._wire = 0
        elif data and not self._buffer_paused:
            self._head_since = self._head_since or self._loop.time()
            if self._wire > limits.HEAD_BYTES:
                self._crowd.flooded(self, "heads without an end")
                self._refuse_head()

    def _begin(self, head: RawRequestMessage | _ErrInfo, body: StreamReader) -> None:
        """A head is there: what follows is its body."""
        self._body, self._wire, self._head_since = body, 0, None
        self._length = 0
        if isinstance(head, RawRequestMessage) and not head.chunked:
            self._length = int(head.headers.get(hdrs.CONTENT_LENGTH, 0))
        self._since = self._loop.time()
        self._pace = Pace(self._since)

    def _refuse_head(self) -> None:
        self._listen_no_more()
        error = _ErrInfo(400, BadHttpMessage("too large"), "too large")
        self._messages.append((error, EMPTY_PAYLOAD))
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _refuse(self, error: ArchiveError) -> None:
        """Let whoever reads the body, if anybody does, tell the sender why it is given up."""
        self._listen_no_more()
        if self._current_request is None and not self._messages:
            self.cut()
            return
        self._lingering_time = 0.0
        self._body.set_exception(error)

    def _listen_no_more(self) -> None:
        self._deaf = True
        self._pause_transport_reading()

    def cut(self) -> None:
        """End it now, without a word."""
        if self.transport is not None:
            self.transport.abort()

    def waited(self) -> float | None:
        """Since when no request of it is there, or what is left of one is only let run out; None
        while one is answered."""
        return None if self._request_in_progress or self._messages else self._since

    def look(self, now: float) -> None:
        """See whether it goes on as it should."""
        if self._head_since is not None and now - self._head_since > limits.HEAD:
            self._end("slow heads")
        elif self._request_in_progress:
            self._look_at_request(now)
        else:
            self._untaken_since = None

    def _look_at_request(self, now: float) -> None:
        self._untaken_since = (self._untaken_since or now) if self.writing_paused else None
        if self._untaken_since is not None and now - self._untaken_since > limits.UNTAKEN:
            self._end("answers that nobody took")
        elif now - self._since > limits.WHOLE:
            self._end("requests without an end")
        elif not self._body.is_eof() and not self._deaf:
            waiting = not self._reading_paused
            if not self._pace.keeps(self._body.total_bytes, now, waiting=waiting):
                self._crowd.flooded(self, "slow bodies")
                self._refuse(
                    UnavailableError("The body came too slowly; nothing was kept. Send it again.")
                )

    def _end(self, why: str) -> None:
        self._crowd.flooded(self, why)
        self.cut()

    async def _handle_request(
        self, request: web.BaseRequest, start_time: float | None, request_handler: _Handler
    ) -> tuple[web.StreamResponse, bool]:
        """Answer one request, in a task of its own, and tell of it in the log."""
        began, status = self._since, None
        with trace.tracing() as traced:
            try:
                response, reset = await super()._handle_request(
                    request, start_time, request_handler
                )
                # Who has gone was told nothing.
                status = None if reset else response.status
                return response, reset
            finally:
                trace.tell(traced, request, status, self._loop.time() - began)

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send the rest of an answer; from then on it waits for the next request."""
        try:
            return await super().finish_response(request, resp, start_time)
        finally:
            self._since = self._loop.time()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what no handler saw."""
        super().handle_error(request, status, exc, message)  # it logs, and knows what was sent
        answer = problems.unreadable() if status < 500 else problems.failed()
        headers.dress(answer, secure=self.ssl_context is not None)
        answer.force_close()
        return answer


class Server(web.Server):
    """Makes connections that are counted."""

    crowd: Crowd

    def __call__(self) -> web.RequestHandler:
        """One that was just opened."""
        return Connection(self.crowd, self, loop=self._loop, **self._kwargs)


async def watch(crowd: Crowd) -> None:
    """Look at all connections each second, and say at most once what was ended."""
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(LOOK)
        for guest in list(crowd.guests):
            guest.look(loop.time())
        if ended := crowd.told():
            log.warning("connections were ended: %s", ended, extra={"event": "connections"})


async def watched(crowd: Crowd) -> AsyncIterator[None]:
    """The same as long as a door is open."""
    task = asyncio.create_task(watch(crowd))
    yield
    task.cancel()
