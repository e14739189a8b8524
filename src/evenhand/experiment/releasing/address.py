"""Where a server may listen."""

from __future__ import annotations

import ipaddress

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
