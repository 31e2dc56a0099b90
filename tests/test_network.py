"""No test reaches another machine: `conftest.py` denies it in every test, and this shows that it does."""

import socket
import urllib.request

import pytest


@pytest.mark.parametrize("address", ["192.0.2.7", "example.org", "2001:db8::1"])
def test_another_machine_is_denied_by_name_and_by_number(denied, address):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as one:
        for connect in (one.connect, one.connect_ex):
            with pytest.raises(OSError, match=f"the tests deny the network, .* {address}"):
                connect((address, 80))
    host = f"[{address}]" if ":" in address else address
    with pytest.raises(OSError, match="the tests deny the network"):
        urllib.request.urlopen(f"http://{host}/", timeout=1)
    assert denied == [address] * 3  # an error that a library swallows still fails the session
    denied.clear()


def test_a_name_is_not_looked_up_and_a_number_needs_no_look_up(denied):
    for resolve, rest in ((socket.getaddrinfo, [80]), (socket.gethostbyname, [])):
        with pytest.raises(OSError, match="the tests deny the network"):
            resolve("example.org", *rest)
        assert resolve("192.0.2.7", *rest)
    assert denied == ["example.org"] * 2
    denied.clear()


def test_this_machine_answers(denied):
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        socket.create_connection(server.getsockname(), timeout=5).close()
    assert socket.getaddrinfo("localhost", 80)
    assert denied == []
