"""rediss:// URLs: a server's certificate is verified against the CA that the URL names, and never not at all."""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from issgd_cli.database.redis import RedisDatabase
from issgd_cli.errors import DatabaseError
from tests.servers import BINARIES, free_port


def openssl(*arguments: object) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Path, Path]]:
    """A server with TLS alone; its port, the CA that signed its certificate for localhost, and another CA."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl")
    place = tmp_path_factory.mktemp("tls")
    for name in ("ca", "other"):
        openssl(
            *("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", 2, "-subj", f"/CN={name}"),
            *("-keyout", place / f"{name}.key", "-out", place / f"{name}.pem"),
            *("-addext", "keyUsage=critical,keyCertSign,cRLSign"),
        )
    (place / "names").write_text("subjectAltName=DNS:localhost")
    request = ("-subj", "/CN=localhost", "-keyout", place / "server.key", "-out", place / "server.csr")
    openssl("req", "-newkey", "rsa:2048", "-nodes", *request)
    openssl(
        *("x509", "-req", "-in", place / "server.csr", "-CA", place / "ca.pem", "-CAkey", place / "ca.key"),
        *("-CAcreateserial", "-days", 2, "-extfile", place / "names", "-out", place / "server.pem"),
    )
    port = free_port()
    options: list[str | Path] = [
        *("--port", "0", "--tls-port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(place)),
        *("--tls-cert-file", place / "server.pem", "--tls-key-file", place / "server.key"),
        *("--tls-ca-cert-file", place / "ca.pem", "--tls-auth-clients", "no"),
        *("--requirepass", "swordfish"),
    ]
    for binary in BINARIES.values():
        with (place / "log").open("ab") as log, subprocess.Popen([binary, *options], stdout=log, stderr=log) as process:
            try:
                if answers(process, port):
                    yield port, place / "ca.pem", place / "other.pem"
                    return
            finally:
                process.terminate()
    pytest.skip("no server of this machine has TLS")


def answers(process: "subprocess.Popen[bytes]", port: int) -> bool:
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return True
        time.sleep(0.02)
    return False


def database(port: int, ca: Path | None, host: str = "localhost", more: str = "") -> RedisDatabase:
    query = f"?ssl_ca_certs={ca}{more}" if ca else more.replace("&", "?", 1)
    return RedisDatabase(f"rediss://:swordfish@{host}:{port}{query}", "tls", patient=False)


def test_a_url_with_tls_works_with_the_ca_that_it_names(secured: tuple[int, Path, Path]) -> None:
    port, ca, _ = secured
    opened = database(port, ca)
    assert opened.ping().split()[0] in ("redis", "valkey")
    opened.put("stop", {})
    assert opened.get("stop") == {}
    opened.close()


@pytest.mark.parametrize("case", ["the system's CAs", "another CA", "another name"])
def test_a_certificate_that_does_not_verify_is_refused(secured: tuple[int, Path, Path], case: str) -> None:
    port, ca, other = secured
    opened = {
        "the system's CAs": database(port, None),
        "another CA": database(port, other),
        "another name": database(port, ca, host="127.0.0.1"),
    }[case]
    with pytest.raises(DatabaseError, match=r"does not answer.*certificate") as caught:
        opened.ping()
    assert "swordfish" not in str(caught.value)
    opened.close()


@pytest.mark.parametrize("option", ["ssl_cert_reqs=none", "ssl_cert_reqs=optional", "ssl_check_hostname=false"])
def test_verification_cannot_be_turned_off_by_the_url(option: str) -> None:
    with pytest.raises(DatabaseError, match="ssl_ca_certs=FILE"):
        database(1, Path("ca.pem"), more=f"&{option}")


def test_a_server_with_tls_is_not_reached_without(secured: tuple[int, Path, Path]) -> None:
    with redis.Redis.from_url(f"redis://:swordfish@localhost:{secured[0]}", retry=None) as client:
        with pytest.raises(redis.ConnectionError):
            client.ping()
