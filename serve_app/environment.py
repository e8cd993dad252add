"""What the environment alone may say: secrets, `DISABLE_AUTH`, and where data lies."""

import ipaddress
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from pydantic import Field

from serve_app.auth_settings import Auth
from serve_app.haproxy import usable
from serve_app.section import Section
from serve_app.settings import SettingsError, Store
from serve_app.store_place import place_of

JWT_DOTS = 2


class Secrets(Section):
    """What the environment alone may hold.

    Raises:
        SettingsError: from :meth:`from_environ`, naming the variable and never its value.
    """

    store_url: str | None = Field(default=None, repr=False)
    admin_keys: list[str] = Field(default=[], repr=False)
    api_keys: list[str] = Field(default=[], repr=False)
    proxy_key: str | None = Field(default=None, repr=False)
    disable_auth: bool = False

    @classmethod
    def from_environ(cls, environ: Mapping[str, str] = os.environ) -> Self:
        """Return the secrets of this process's environment."""

        def several(name: str) -> list[str]:
            keys = [key.strip() for key in environ.get(name, "").split(",") if key.strip()]
            if not all(re.fullmatch(r"[!-~]+", key) for key in keys):
                raise SettingsError(f"{name}: a key may hold printable ASCII only, no spaces")
            if any(key.count(".") == JWT_DOTS for key in keys):
                raise SettingsError(f"{name}: a key with two dots would be taken for a JWT")
            return keys

        store_url = environ.get("SLUICEGATE_STORE_URL") or None
        if store_url and not _is_store_url(store_url):
            raise SettingsError(
                "SLUICEGATE_STORE_URL: not a redis://, rediss://, unix://, redis+cluster:// or "
                "redis+sentinel:// URL; in a password write / as %2F, @ as %40 and : as %3A"
            )
        proxy_key = environ.get("SLUICEGATE_PROXY_KEY") or None
        if proxy_key and not usable(proxy_key):
            raise SettingsError(
                "SLUICEGATE_PROXY_KEY: needs 16 or more of A-Z a-z 0-9 . _ ~ -, nothing else"
            )
        return cls(
            store_url=store_url,
            admin_keys=several("SLUICEGATE_ADMIN_KEY"),
            api_keys=several("SLUICEGATE_API_KEY"),
            proxy_key=proxy_key,
            disable_auth=_yes_or_no("DISABLE_AUTH", environ),
        )


def must_be_local(host: str, auth: Auth) -> None:
    """Return if authentication may be disabled on ``host``.

    Raises:
        SettingsError: others can reach it, and nobody said that this is meant.
    """
    if auth.i_know or _is_loopback(host):
        return
    raise SettingsError(
        f"args.auth.disabled, or DISABLE_AUTH: everyone who reaches {host} could use this gate; "
        "listen on 127.0.0.1, or set args.auth.i_know to true"
    )


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _yes_or_no(name: str, environ: Mapping[str, str]) -> bool:
    said = environ.get(name, "").strip().lower()
    if said not in ("", "0", "1", "false", "true", "no", "yes"):
        raise SettingsError(f"{name}: say true or false, not '{said[:20]}'")
    return said in ("1", "true", "yes")


def _is_store_url(url: str) -> bool:
    """Return whether ``url`` can be read; what is wrong with a bad one could show a password."""
    try:
        place_of(url)
    except ValueError:
        return False
    return True


def data_dir(store: Store, environ: Mapping[str, str] = os.environ) -> Path:
    """Return the folder for everything that must outlive a restart on this machine."""
    if store.data_dir:
        return Path(store.data_dir).expanduser().absolute()
    share = environ.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(share).expanduser() / "sluicegate"
