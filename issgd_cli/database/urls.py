"""A database's URL, checked before anything is sent to anyone.

The client itself would take what it does not know for an argument of its own, and leave aside what it cannot read.
"""

import os
import re
import ssl
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

from issgd_cli.database.documents import UnfitError
from issgd_cli.errors import DatabaseError

_ALL = ("db", "username", "password")
_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_VERIFICATION = ("ssl_cert_reqs", "ssl_check_hostname")
OPTIONS = {
    "redis": _ALL,
    "rediss": (*_ALL, *_FILES, "ssl_password", *_VERIFICATION),
    "unix": _ALL,
}


def arguments(url: str) -> dict[str, Any]:
    """What the client is to be made with.

    Args:
        url: redis://, rediss:// or unix://, with some of OPTIONS.

    Raises:
        DatabaseError: It is no such URL, has another option or a value that cannot be, names a file that cannot be
            used, or turns off the verification of certificates. What may be part of a password is not told.
    """
    try:
        return _read(url)
    except ValueError as error:  # the library's own texts quote parts of the URL, of a password even
        why = error if isinstance(error, UnfitError) else "its host or port is none; an IPv6 address stands in [ ]"
        raise DatabaseError(
            f"The database's URL is not valid: {why}.",
            "Write redis://host:6379 for instance; in a user, a password or a path, / @ : ? # & and % are written as "
            "%2F %40 %3A %3F %23 %26 and %25.",
        ) from None


def _read(url: str) -> dict[str, Any]:
    if not url.isprintable() or " " in url:
        raise UnfitError("it holds a space or a character that is not printable")
    parts = urlsplit(url)
    host, port = parts.hostname, parts.port
    if parts.scheme not in OPTIONS:
        raise UnfitError("it begins with none of redis://, rediss:// and unix://")
    if "#" in url or "@" in parts.query:
        raise UnfitError("it holds a # or, after a ?, an @")
    options = _options(parts)
    common: dict[str, Any] = {"db": _number(options.pop("db", "0"))}
    common |= {name: options.pop(name) for name in ("username", "password") if name in options}
    if parts.scheme == "unix":
        path = unquote(parts.path)
        if host is not None or not path.startswith("/") or path == "/" or "\0" in path:
            raise UnfitError("it names no socket; one is written unix:///path/to/socket")
        return {"unix_socket_path": path, **common}
    if not _is_host(host) or port == 0:
        raise UnfitError("it names no host, or no port from 1 to 65535")
    place = {"host": unquote(str(host)), "port": port or 6379}
    return {**place, **common, **(_tls(options) if parts.scheme == "rediss" else {})}


def _options(parts: SplitResult) -> dict[str, str]:
    """By name: user and password, wherever they stand, the database's number, and what follows the ?."""
    pairs = [(name, value) for name, value in (("username", parts.username), ("password", parts.password)) if value]
    if parts.scheme != "unix" and parts.path.strip("/"):
        pairs.append(("db", parts.path.removeprefix("/")))
    for option in filter(None, parts.query.split("&")):
        name, _, value = option.partition("=")
        if name not in OPTIONS[parts.scheme]:
            known = ", ".join(OPTIONS[parts.scheme])
            tls = " For TLS, write rediss://." if parts.scheme == "redis" else ""
            raise DatabaseError(
                f"The database's URL has an option {name[:40]!r}, which is unknown or not for {parts.scheme}://.",
                f"There can be {known}.{tls}",
            )
        pairs.append((name, value))
    options = {name: unquote(value) for name, value in pairs}
    if len(options) < len(pairs):
        raise UnfitError("it says something twice")
    return options


def _number(text: str) -> int:
    if not re.fullmatch("[0-9]{1,9}", text):
        raise UnfitError("the database's number, which follows the host and a /, is none")
    return int(text)


def _is_host(host: str | None) -> bool:
    name = unquote(host or "")
    try:
        name.encode("idna")  # as the system's resolver is asked
    except UnicodeError:
        return False
    return name.isprintable() and name != "" and " " not in name


def _tls(options: dict[str, str]) -> dict[str, Any]:
    """How the server's certificate is verified, and with what we prove who we are."""
    if any(options.get(name, "required").lower() not in ("required", "true", "yes", "1") for name in _VERIFICATION):
        raise DatabaseError(
            "The database's URL turns off the verification of the server's certificate, so anyone between could read "
            "the password.",
            "Name the CA that signed it: rediss://host:6379?ssl_ca_certs=FILE.",
        )
    files = {name: options[name] for name in _FILES if name in options}
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for name, path in files.items():
        try:
            if not os.path.isfile(path):
                raise FileNotFoundError("there is no such file")
            if name == "ssl_ca_certs":
                context.load_verify_locations(path)
            else:  # a key is of use with its certificate only; without a password, it must not ask the terminal for one
                certificate = options.get("ssl_certfile", path)
                context.load_cert_chain(certificate, files.get("ssl_keyfile"), options.get("ssl_password", ""))
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise DatabaseError(
                f"{path!r}, named by {name} in the database's URL, cannot be used: {reason}.",
                "Name a file of PEM certificates, or of a key with its certificate's in ssl_certfile.",
            ) from None
    return {"ssl": True, "ssl_check_hostname": True, **files, "ssl_password": options.get("ssl_password")}
