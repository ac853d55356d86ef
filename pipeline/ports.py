"""Ports on this machine."""

import socket


def free_port() -> int:
    """A TCP port on loopback that nobody listens on now: launchers' default port may be another training's."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]
