"""Serve the built book on this machine only, on the first free port from 8000, until
interrupted."""

from __future__ import annotations

import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer


class Quiet(SimpleHTTPRequestHandler):
    """Files of one folder, without a line of log for each."""

    def log_message(self, format: str, *args: object) -> None:
        return


def server(folder: str, first: int = 8000) -> ThreadingHTTPServer:
    """Return a server on 127.0.0.1 on the first free port."""
    for port in range(first, first + 100):
        try:
            return ThreadingHTTPServer(("127.0.0.1", port), partial(Quiet, directory=folder))
        except OSError:
            continue
    raise SystemExit(f"No free port between {first} and {first + 99} on 127.0.0.1.")


if __name__ == "__main__":
    book = server(sys.argv[1])
    print(f"The book is at http://127.0.0.1:{book.server_port}/ (stop with Ctrl-C)", flush=True)
    try:
        book.serve_forever()
    except KeyboardInterrupt:
        print()
