"""Running the application under uvicorn, and stopping without losing a request."""

from __future__ import annotations

import asyncio
import math
import signal
import socket
from types import FrameType

import uvicorn
from fastapi import FastAPI

from evenhand.config.production_schema import ProductionConfig
from evenhand.core.errors import DeviceError
from evenhand.serve.answering import Serving
from evenhand.serve.logs import LOGGER, start_logging

_LAST_ANSWERS_SECONDS = 0.5


class DrainingServer(uvicorn.Server):
    """Stops in order: no new connections, answers to what was asked, storage, end.

    A connection that a client keeps open is not cut at once: for a moment its requests are still
    answered, each with ``Connection: close``. So a busy client is told, rather than left with a
    request that went nowhere.
    """

    def __init__(self, config: uvicorn.Config, serving: Serving) -> None:
        super().__init__(config)
        self.serving = serving

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """Begin to stop; a second SIGINT does not wait for requests.

        uvicorn's own would end the process by the signal after all was done; a server that stopped
        in order ends with 0.
        """
        if self.should_exit and sig == signal.SIGINT:
            self.force_exit = True
        self.serving.begin_drain()
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening, give busy clients their last answers, then wait for the rest."""
        LOGGER.info("stopping: no new connections")
        for server in self.servers:
            server.close()
        for one in sockets or ():
            one.close()
        if not self.force_exit:
            await asyncio.sleep(_LAST_ANSWERS_SECONDS)
        await super().shutdown()


def serve_forever(app: FastAPI, *, host: str, port: int, settings: ProductionConfig) -> None:
    """Serve until SIGTERM or SIGINT, then finish every accepted request and return.

    Args:
        app: from :func:`evenhand.serve.app.create_app`.
        host: an address of this machine.
        port: 0 takes a free one.
        settings: ``serve.drain_seconds`` bounds how long the end may take.

    Raises:
        DeviceError: the address is in use or not of this machine, or accepted requests could not be
            finished in time.
    """
    listener = _listen(host, port)
    start_logging()
    server = make_server(app, settings)
    address, bound = listener.getsockname()[:2]
    LOGGER.info("listening", extra={"fields": {"host": address, "port": bound}})
    server.run(sockets=[listener])
    if not server.serving.is_drained:
        raise DeviceError(
            "the server stopped before every accepted request was finished",
            hint="raise serve.drain_seconds, or see the log for what held them up",
        )
    LOGGER.info("stopped: every accepted request was answered and stored")


def make_server(app: FastAPI, settings: ProductionConfig) -> DrainingServer:
    """Return a server for the app, not yet running."""
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        ws="none",
        lifespan="on",
        timeout_graceful_shutdown=math.ceil(settings.serve.drain_seconds),
    )
    return DrainingServer(config, app.state.serving)


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise DeviceError(f"{host} is no address of this machine: {error.strerror}") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise DeviceError(
            f"cannot listen on {host} port {port}: {error.strerror or error}",
            hint="choose another with --port, or stop what uses it",
        ) from error
    return listener
