"""`cai-base serve`: the server on this machine's loopback address, until it is stopped."""

import socket

import uvicorn

from cai_base.errors import UserError
from cai_base.integrations.desk import Desk
from cai_base.integrations.server.app import make_app
from cai_base.integrations.server.models import Models
from cai_base.progress import Progress

LOOPBACK = "127.0.0.1"


def serve(models: Models, port: int, progress: Progress) -> None:
    """Serve until stopped.

    Raises:
        UserError: the port is taken.
    """
    try:
        listening = socket.create_server((LOOPBACK, port))
    except OSError as error:
        raise UserError(f"--port {port}: cannot be used ({error.strerror}); give another port") from None
    desk = Desk()
    address = f"http://{LOOPBACK}:{listening.getsockname()[1]}/v1"
    progress.say(f"Serving {', '.join(models.by_name)} at {address} (no key needed); Ctrl-C stops it")
    config = uvicorn.Config(make_app(models, desk), log_level="warning", access_log=False, timeout_keep_alive=30)
    try:
        uvicorn.Server(config).run(sockets=[listening])
    finally:
        desk.close()
