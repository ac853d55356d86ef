"""A free port can be listened on."""

import socket

from pipeline.ports import free_port


def test_a_free_port_can_be_taken():
    with socket.socket() as server:
        server.bind(("127.0.0.1", free_port()))
        server.listen()
