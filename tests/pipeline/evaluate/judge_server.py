"""A judge on this machine: a real HTTP server that answers as it is told, and remembers what it was asked."""

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class JudgeServer:
    """Speaks OpenAI's chat completions on loopback. `answer(prompt)` gives the reply: a text; or a number, sent as that HTTP status; or
    bytes, sent as the whole body. With `key`, any other is refused (401)."""

    def __init__(self, answer: Callable[[str], str | int | bytes], key: str = "", slow: float = 0.0):
        self.answer, self.key, self.slow = answer, key, slow
        self.asked: list[dict] = []
        self.headers: list[dict] = []
        handler = type("Handler", (_Handler,), {"judge": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def __enter__(self) -> "JudgeServer":
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def prompts(self) -> list[str]:
        """What was asked, in order."""
        return [content["messages"][0]["content"] for content in self.asked]


class _Handler(BaseHTTPRequestHandler):
    judge: JudgeServer

    def do_POST(self) -> None:
        content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.judge.asked.append(content)
        self.judge.headers.append(dict(self.headers))
        time.sleep(self.judge.slow)
        if self.path != "/v1/chat/completions":
            return self._send(404, b"{}")
        if self.judge.key and self.headers.get("Authorization") != f"Bearer {self.judge.key}":
            return self._send(401, b'{"error": {"message": "no"}}')
        said = self.judge.answer(content["messages"][0]["content"])
        if isinstance(said, int):
            return self._send(said, b"{}")
        body = said if isinstance(said, bytes) else json.dumps({"choices": [{"message": {"role": "assistant", "content": said}}]}).encode()
        return self._send(200, body)

    def _send(self, status: int, body: bytes) -> None:
        try:
            self.send_response(status)
            if 300 <= status < 400:
                self.send_header("Location", self.judge.url + "/elsewhere")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        except (BrokenPipeError, ConnectionResetError):  # the client did not wait
            pass

    def log_message(self, *_: object) -> None:
        """Silent."""
