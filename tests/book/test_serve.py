"""`make book` serves on this machine only, on the first free port."""

from __future__ import annotations

import threading
import urllib.request

from serve import server


def test_two_servers_take_two_ports_of_this_machine(tmp_path):
    (tmp_path / "index.html").write_text("the book", encoding="utf-8")
    first, second = server(str(tmp_path), 8700), server(str(tmp_path), 8700)
    try:
        assert first.server_address[0] == second.server_address[0] == "127.0.0.1"
        assert 8700 <= first.server_port < second.server_port
        threading.Thread(target=second.serve_forever, daemon=True).start()
        with urllib.request.urlopen(
            f"http://127.0.0.1:{second.server_port}/index.html", timeout=5
        ) as reply:
            assert reply.read() == b"the book"
    finally:
        second.shutdown()
        first.server_close()
        second.server_close()
