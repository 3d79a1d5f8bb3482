"""In place of llama.cpp's server: replies in the rubric's form, logs each question, and dies as often as it is told.

Beside the "model" lies `deaths`, a number that each death lowers by one, and `asked`, a line for each question. With
`impostor` there too, another process answers at its port once it is dead: that everything was refused.
"""

import json
import os
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

FILE, _ = sys.argv[1:]
SECRET = json.loads(sys.stdin.buffer.readline())
FOLDER = Path(FILE).parent
ANSWERED = []
FIRST = os.getpid()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.knows_key():
            self.reply({"data": [{"id": SECRET["alias"]}]})

    def do_POST(self) -> None:
        if not self.knows_key():
            return
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with (FOLDER / "asked").open("a") as log:
            log.write(json.dumps(body["messages"][-1]["content"]) + "\n")
        left = int((FOLDER / "deaths").read_text())
        if left and len(ANSWERED) == 2:
            (FOLDER / "deaths").write_text(str(left - 1))
            if not (FOLDER / "impostor").exists():
                os._exit(1)
            dead = os.getpid()
            if os.fork():
                os._exit(1)
            while os.getppid() == dead:
                time.sleep(0.01)
        ANSWERED.append(True)
        fields = body["response_format"]["json_schema"]["schema"]["properties"]
        answer = {
            name: "-" if one["type"] == "string" else 0 if one["type"] == "number" else os.getpid() != FIRST
            for name, one in fields.items()
        }
        message = {"role": "assistant", "content": json.dumps(answer)}
        self.reply(
            {
                "id": "1",
                "object": "chat.completion",
                "created": 0,
                "model": "m",
                "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
            }
        )
        if os.getpid() != FIRST:
            os._exit(0)

    def knows_key(self) -> bool:
        with (FOLDER / "keys").open("a") as log:
            log.write(self.headers.get("Authorization", "none") + "\n")
        if self.headers.get("Authorization") == f"Bearer {SECRET['key']}":
            return True
        self.send_error(401)
        return False

    def reply(self, content: object) -> None:
        data = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


if "broken" in FILE:
    sys.exit("error: unknown model architecture")
server = HTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
threading.Thread(target=server.serve_forever, daemon=True).start()
sys.stdin.buffer.read()
os._exit(0)
