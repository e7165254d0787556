"""A bucket that answers questions about itself as it is told to: what no real store here says."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit


@dataclass
class Answering:
    """`region` is a header of each answer; `answers` the status and body for a question."""

    endpoint: str = ""
    region: str = ""
    answers: dict[str, tuple[int, str]] = field(default_factory=dict)


@contextmanager
def answering() -> Iterator[Answering]:
    """Serve from a thread, so that a command that brings its own loop can ask, too."""
    told = Answering()

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(200, "")

        def do_GET(self) -> None:
            asked = parse_qs(urlsplit(self.path).query, keep_blank_values=True)
            known = [said for question, said in told.answers.items() if question in asked]
            self._answer(
                *(known[0] if known else (501, "<Error><Code>NotImplemented</Code></Error>"))
            )

        def _answer(self, status: int, body: str) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body.encode())))
            if told.region:
                self.send_header("x-amz-bucket-region", told.region)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        told.endpoint = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield told
        finally:
            server.shutdown()
            thread.join()
