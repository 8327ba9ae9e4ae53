"""What may stand in a database's URL: it works, or one clear error says why not before anything is sent to anyone."""

import contextlib
import re
from pathlib import Path

import pytest

from issgd_cli.database import urls
from issgd_cli.database.redis import RedisDatabase
from issgd_cli.errors import AwayError, DatabaseError

SECRET = "swordfish"

NONE = [
    *("", " ", "redis", "redis:", "redis://", "redis:///0", "//host", "host:6379", "http://host", "redis+socket:///x"),
    *("redis://h:0", "redis://h:-1", "redis://h:65536", f"redis://h:{'9' * 5000}", "redis://h:1:2", "redis://h:port"),
    *("redis://::1", "redis://[::1", "redis://[zz]:1", "redis://fe80::1:6379", "redis://.h", f"redis://{'a' * 64}"),
    *("redis://h/x", "redis://h/1/2", "redis://h/-1", "redis://h?db=x", "redis://h?db", "redis://h?db=", "redis://h/٣"),
    *("redis://h?db=1&db=1", "redis://h/1?db=1", "redis://u@h?username=v", "redis://h#f", "redis://h#", "redis://h\n"),
    *(
        "redis://h\0",
        "redis://h%00",
        "redis://h%20x",
        "redis://h x",
        "redis://h\udcff",
        "redis://h\u2100x",
        "redis://@",
    ),
    *("unix://", "unix:///", "unix://h/x", "unix:x", "unix:///%00", "unix:///a%00b", "unix:///x?db=x", "unix://u:p@x"),
    *(f"redis://u:{SECRET}@", f"redis://:{SECRET}/x@h:1", f"redis://u:{SECRET}?x@h:1", f"redis://u:{SECRET}#x@h:1"),
    *(f"redis://u:1?{SECRET}@h", f"redis://u:1/{SECRET}@h", f"redis://u?{SECRET}=1@h", f"redis://u:1#{SECRET}@h"),
    *(f"unix://u:{SECRET}@h/x", f"redis://:{SECRET}", f"redis://u:{SECRET}\n@h", f"redis://u:{SECRET}@h:port"),
]


@pytest.mark.parametrize("url", NONE)
def test_what_is_no_url_of_a_database_is_refused_at_once_and_no_password_told(url: str) -> None:
    with pytest.raises(DatabaseError, match=r"URL is not valid.*redis://host:6379") as caught:
        RedisDatabase(url, "run")
    assert SECRET not in f"{caught.value} {caught.value.__cause__}"
    assert caught.value.__suppress_context__
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "option"),
    [
        *((f"redis://u:{SECRET}@h?{name}=1", name) for name in ("tls", "ssl", "ssl_ca_certs", "socket_timeout", "x")),
        *((f"rediss://u:{SECRET}@h?{name}=1", name) for name in ("tls", "ssl_ciphers", "ssl_min_version", "host")),
        *((f"unix://u:{SECRET}@/x?{name}=1", name) for name in ("ssl_ca_certs", "virtual_host", "path", "")),
        (f"redis://h?db=1&password={SECRET}&protocol=3", "protocol"),
    ],
)
def test_an_option_that_is_unknown_is_named_with_those_that_are_known(url: str, option: str) -> None:
    with pytest.raises(DatabaseError, match=rf"option '{option}'.*db, username, password") as caught:
        RedisDatabase(url, "run")
    assert SECRET not in str(caught.value)
    assert ("rediss://" in str(caught.value)) == (not url.startswith("unix"))
    assert ("ssl_keyfile" in str(caught.value)) == url.startswith("rediss")


@pytest.mark.parametrize("name", ["ssl_ca_certs", "ssl_certfile", "ssl_keyfile"])
@pytest.mark.parametrize("file", ["missing", "", "folder", "nonsense", "%00", "%ff"])
def test_a_file_that_cannot_be_used_is_refused_at_once(tmp_path: Path, name: str, file: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "nonsense").write_text("nonsense")
    with pytest.raises(DatabaseError, match=rf"named by {name} in the database's URL, cannot be used.*PEM") as caught:
        RedisDatabase(f"rediss://u:{SECRET}@h?{name}={tmp_path / file if file else ''}", "run")
    assert SECRET not in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://h", {}),
        ("REDIS://H:1/", {"port": 1}),
        ("redis://h:/3", {"db": 3}),
        ("redis://h?db=4", {"db": 4}),
        ("redis://[::1]:7", {"host": "::1", "port": 7}),
        ("redis://[fe80::1%25eth0]", {"host": "fe80::1%eth0"}),
        ("redis://:p%2F%40%3A%3F%23%26%25@h", {"password": "p/@:?#&%"}),
        ("redis://ü:a+b!@h", {"username": "ü", "password": "a+b!"}),
        ("redis://u:p%zz@h", {"username": "u", "password": "p%zz"}),
        ("redis://u:a@b@h", {"username": "u", "password": "a@b"}),
        ("redis://h?username=u&password=a%40b", {"username": "u", "password": "a@b"}),
        ("rediss://h?ssl_cert_reqs=required", {"ssl": True, "ssl_check_hostname": True, "ssl_password": None}),
    ],
)
def test_a_url_says_what_the_client_is_made_with(url: str, expected: dict[str, object]) -> None:
    assert urls.arguments(url) == {"host": "h", "port": 6379, "db": 0, **expected}


def test_a_sockets_path_is_read_as_it_was_quoted() -> None:
    read = {"unix_socket_path": "/a b#?%/x+y", "db": 2, "username": "u", "password": "p"}
    assert urls.arguments("unix://u:p@/a%20b%23%3F%25/x+y?db=2") == read


@pytest.mark.parametrize(
    "url",
    [
        *("redis://127.0.0.1:1", "redis://[::1]:1", "redis://nobody.invalid", "redis://:@127.0.0.1:1", "redis://h%zz"),
        *("unix:///nowhere", f"unix:///{'x' * 200}", "unix:///%ff", "rediss://127.0.0.1:1?ssl_check_hostname=true"),
        *("redis://127.0.0.1:1/15", "redis://u:%00%0a@127.0.0.1:1", f"redis://{'a.' * 1000}", "redis://127.0.0.1:1?&"),
    ],
)
def test_where_nobody_answers_that_is_one_clear_error(url: str) -> None:
    with contextlib.closing(RedisDatabase(url, "run", patient=False)) as database:
        for command in (database.ping, lambda: database.get("stop")):
            with pytest.raises(AwayError, match=r"does not answer: .*Is the server up, and the URL right\?") as caught:
                command()
            assert re.fullmatch(r"[^\n]{1,500}", str(caught.value))
