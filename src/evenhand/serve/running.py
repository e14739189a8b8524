"""Running the application under uvicorn, and stopping without losing a request."""

from __future__ import annotations

import asyncio
import math
import signal
import socket
from types import FrameType

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from evenhand.config.production_schema import ProductionConfig
from evenhand.core.errors import ConfigError, DeviceError, Problem
from evenhand.serve.answering import Serving
from evenhand.serve.logs import LOGGER, start_logging

_LAST_ANSWERS_SECONDS = 2.0
_POLL_SECONDS = 0.05


class TimedProtocol(H11Protocol):
    """HTTP/1.1 in which a connection without a request that is being answered is closed in time.

    uvicorn waits without end for the first request, for the rest of one's head, and for a body that
    nobody reads any more: whoever sends a byte now and then could take every connection that the
    process may have open. uvicorn's other implementation, which it would choose where httptools is
    installed, does not bound the size of a head either.
    """

    idle_seconds = 30.0
    _overdue: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Go on waiting, from the first byte on, until a request has begun."""
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        super().connection_lost(exc)
        self._stop_watch()

    @property
    def _is_answering(self) -> bool:
        cycle = self.cycle  # None before the first request, whatever its type says
        return bool(cycle) and not cycle.response_complete

    def _watch(self) -> None:
        if self._is_answering:
            self._stop_watch()
        elif self._overdue is None and not self.transport.is_closing():
            self._overdue = self.loop.call_later(self.idle_seconds, self._close_idle)

    def _stop_watch(self) -> None:
        if self._overdue is not None:
            self._overdue.cancel()
            self._overdue = None

    def _close_idle(self) -> None:
        self._overdue = None
        if not self._is_answering:
            self.transport.close()


class DrainingServer(uvicorn.Server):
    """Stops in order: no new connections, answers to what was asked, storage, end.

    A connection that a client keeps open is not cut at once: its next request, if it comes within
    two seconds, is still answered, with ``Connection: close``. So a busy client is told, rather
    than left with a request that went nowhere.
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
        await self._give_last_answers()
        await super().shutdown()

    async def _give_last_answers(self) -> None:
        """Wait for clients that keep connections open, but for no longer than for requests."""
        now = asyncio.get_running_loop().time
        end = now() + min(_LAST_ANSWERS_SECONDS, self.serving.settings.serve.drain_seconds)
        while now() < end and not self.force_exit:
            await asyncio.sleep(_POLL_SECONDS)  # first of all: what is being accepted gets its turn
            if not self.server_state.connections:
                return


def bind(host: str, port: int) -> socket.socket:
    """Take an address to serve at; nobody can connect before :func:`serve_forever` listens.

    Args:
        host: an address of this machine.
        port: 0 takes a free one.

    Raises:
        ConfigError: the port is in use, or the address is not this machine's.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        taken = socket.socket(family, kind, protocol)
        try:
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            taken.bind(address)
        except OSError:
            taken.close()
            raise
    except OSError as error:
        reason = error.strerror or str(error)
        message = f"cannot listen at {host}, port {port}: {reason}; choose another --port or --host"
        raise ConfigError(
            "the command", [Problem("--port", message)], consequence="nothing is served"
        ) from error
    return taken


def serve_forever(app: FastAPI, taken: socket.socket, *, settings: ProductionConfig) -> None:
    """Serve until SIGTERM or SIGINT, then finish every accepted request and return.

    Args:
        app: from :func:`evenhand.serve.app.create_app`.
        taken: from :func:`bind`; closed at the end.
        settings: ``serve.drain_seconds`` bounds how long the end may take.

    Raises:
        ConfigError: another program listens at the address by now.
        DeviceError: accepted requests could not be finished in time.
    """
    address, bound = taken.getsockname()[:2]
    try:
        taken.listen(2048)
    except OSError as error:
        taken.close()
        message = f"port {bound} has been taken meanwhile; choose another --port"
        raise ConfigError(
            "the command", [Problem("--port", message)], consequence="nothing is served"
        ) from error
    start_logging()
    server = make_server(app, settings)
    LOGGER.info("listening", extra={"fields": {"host": address, "port": bound}})
    server.run(sockets=[taken])
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
        http=_protocol(settings.serve.timeout_seconds),
        ws="none",
        lifespan="on",
        timeout_graceful_shutdown=math.ceil(settings.serve.drain_seconds),
    )
    return DrainingServer(config, app.state.serving)


def _protocol(seconds: float) -> type[TimedProtocol]:
    class Protocol(TimedProtocol):
        idle_seconds = seconds

    return Protocol
