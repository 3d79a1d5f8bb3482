"""`cai-base serve`: the server on this machine's loopback address, until it is stopped."""

import os
import secrets
import socket

import uvicorn

from cai_base.errors import UserError
from cai_base.integrations.desk import Desk
from cai_base.integrations.server.app import make_app
from cai_base.integrations.server.models import Models
from cai_base.progress import Progress

LOOPBACK = "127.0.0.1"
CONNECTIONS = 256
"""The most connections at a time; a request on a further one has status 503, after which clients try again."""


def listen(port: int) -> socket.socket:
    """Take the port, before the models are loaded, which takes long; 0 takes a free one.

    Raises:
        UserError: the port is taken.
    """
    try:
        return socket.create_server((LOOPBACK, port))
    except OSError as error:
        raise UserError(f"--port {port}: cannot be used ({os.strerror(error.errno or 0)}); give another port") from None


def serve(models: Models, listening: socket.socket, progress: Progress, *, with_key: bool) -> None:
    """Serve until stopped.

    Args:
        with_key: requests need a key, which is random and shown at the start.
    """
    key = secrets.token_urlsafe(24) if with_key else None
    desk = Desk()
    address = f"http://{LOOPBACK}:{listening.getsockname()[1]}/v1"
    keys = f"API key: {key}" if key else "no key needed, so every user of this machine can ask; --with-key asks for one"
    progress.say(f"Serving {', '.join(models.by_name)} at {address} ({keys}); Ctrl-C stops it")
    config = uvicorn.Config(
        make_app(models, desk, key),
        log_level="warning",
        access_log=False,
        timeout_keep_alive=30,
        limit_concurrency=CONNECTIONS,
    )
    try:
        uvicorn.Server(config).run(sockets=[listening])
    finally:
        desk.close()
