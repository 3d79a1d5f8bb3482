"""`cai-base serve`: the server on this machine's loopback address, until it is stopped."""

import os
import socket

import uvicorn

from cai_base.errors import UserError
from cai_base.integrations.desk import Desk
from cai_base.integrations.server.app import make_app
from cai_base.integrations.server.models import Models
from cai_base.progress import Progress

LOOPBACK = "127.0.0.1"


def listen(port: int) -> socket.socket:
    """Take the port, before the models are loaded, which takes long; 0 takes a free one.

    Raises:
        UserError: the port is taken.
    """
    try:
        return socket.create_server((LOOPBACK, port))
    except OSError as error:
        raise UserError(f"--port {port}: cannot be used ({os.strerror(error.errno or 0)}); give another port") from None


def serve(models: Models, listening: socket.socket, progress: Progress) -> None:
    """Serve until stopped."""
    desk = Desk()
    address = f"http://{LOOPBACK}:{listening.getsockname()[1]}/v1"
    progress.say(f"Serving {', '.join(models.by_name)} at {address} (no key needed); Ctrl-C stops it")
    config = uvicorn.Config(make_app(models, desk), log_level="warning", access_log=False, timeout_keep_alive=30)
    try:
        uvicorn.Server(config).run(sockets=[listening])
    finally:
        desk.close()
