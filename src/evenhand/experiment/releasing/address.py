"""Where a server may listen."""

from __future__ import annotations

import ipaddress
import socket

from evenhand.core.errors import ConfigError, Problem


def check_exposure(host: str, *, has_keys: bool, database: str) -> None:
    """Refuse to answer the network without API keys.

    Raises:
        ConfigError: the address is not this machine's alone, and there is no key.
    """
    if not has_keys and not is_loopback(host):
        message = (
            f"{host} can be reached from other machines, and the database has no API key; make "
            f"one with `evenhand keys add NAME --database {database}`"
        )
        raise ConfigError(
            "the command", [Problem("--host", message)], consequence="nothing is served"
        )


def is_loopback(host: str) -> bool:
    """Return whether an address is reached from this machine alone.

    >>> is_loopback("127.0.0.1"), is_loopback("::1"), is_loopback("0.0.0.0")
    (True, True, False)
    """
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def check_port(host: str, port: int) -> None:
    """Refuse an address that cannot be listened at, before a model is loaded for it.

    Raises:
        ConfigError: the port is in use, or the address is not this machine's.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind(address)
    except OSError as error:
        reason = error.strerror or str(error)
        message = f"cannot listen at {host}, port {port}: {reason}; choose another --port or --host"
        raise ConfigError(
            "the command", [Problem("--port", message)], consequence="nothing is served"
        ) from error
