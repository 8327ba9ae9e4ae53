"""Where a server of ours listens for workers on other machines."""

import socket

import pytest

from issgd_cli.database.addresses import is_everywhere, parsed
from issgd_cli.errors import DatabaseError


def test_an_address_is_its_host_and_its_port() -> None:
    assert parsed("10.0.0.1:6379") == ("10.0.0.1", 6379)
    assert parsed("[::1]:1") == ("::1", 1)
    assert parsed("*:65535") == ("*", 65535)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "*", "0.0.0.0"])
def test_port_0_is_one_that_nobody_listens_on(host: str) -> None:
    name, port = parsed(f"{host}:0")
    assert name == host
    assert port > 0
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", port))


def test_a_free_port_of_another_machine_cannot_be_had() -> None:
    with pytest.raises(DatabaseError, match=r"No server can listen on 192\.0\.2\.1"):
        parsed("192.0.2.1:0")
    with pytest.raises(DatabaseError, match=r"No server can listen on no-such-host\.invalid"):
        parsed("no-such-host.invalid:0")


@pytest.mark.parametrize("listen", ["", "host", "host:", ":1", "host:65536", "host:-1", "::1:6379"])
def test_what_is_no_address_is_refused(listen: str) -> None:
    with pytest.raises(DatabaseError, match="is no address to listen on"):
        parsed(listen)


def test_all_addresses_have_several_names() -> None:
    assert all(map(is_everywhere, ("*", "0.0.0.0", "::")))
    assert not any(map(is_everywhere, ("127.0.0.1", "::1", "node0")))
