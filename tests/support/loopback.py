"""What the servers of the tests share: they run on the loopback interface and answer in JSON."""

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from typing_extensions import override


class JsonHandler(BaseHTTPRequestHandler):
    """Answers in JSON and logs nothing."""

    owner: Any

    @override
    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.serve()

    do_PUT = do_POST = do_DELETE = do_GET  # noqa: N815  # names that http.server looks for

    def serve(self) -> None:
        """Answer a request of any method, `self.command`."""
        raise NotImplementedError

    def reply(self, content: Any, *, code: int = 200, headers: Mapping[str, str] = {}) -> None:
        """Send an answer."""
        body = json.dumps(content).encode()
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class LoopbackServer:
    """A server on a free port; use `running`.

    Args:
        handler: Answers requests; `owner` is this server.

    Attributes:
        url: Its address.
    """

    def __init__(self, handler: type[JsonHandler]) -> None:
        own = type("Handler", (handler,), {"owner": self})
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), own)
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    @contextmanager
    def running(self) -> Iterator[Self]:
        """Serve until the context is left."""
        thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield self
        finally:
            self._http.shutdown()
            self._http.server_close()
            thread.join()
