"""The guard of conftest.py: a test that leaves this machine fails, and says where it wanted to go."""

from __future__ import annotations

import socket

import pytest
import requests


@pytest.mark.parametrize("address", [("192.0.2.1", 80), ("2001:db8::1", 443, 0, 0)], ids=["IPv4", "IPv6"])
def test_no_connection_leaves_the_machine(address):
    family = socket.AF_INET if len(address) == 2 else socket.AF_INET6
    with socket.socket(family) as connection, pytest.raises(RuntimeError, match="loopback servers only"):
        connection.connect(address)


def test_no_name_is_looked_up():
    with pytest.raises(RuntimeError, match=r"storage.googleapis.com.*loopback servers only"):
        socket.getaddrinfo("storage.googleapis.com", 443)


def test_clients_are_held_back_too():
    with pytest.raises(RuntimeError, match="loopback servers only"):
        requests.get("http://192.0.2.1/", timeout=1, proxies={"http": None, "https": None})


def test_loopback_works():
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        assert client.getpeername() == server.getsockname()
