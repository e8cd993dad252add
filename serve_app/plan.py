"""Everything that can be known before anything is started: file, settings, port, folder, TLS."""

import asyncio
import datetime
import errno
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from serve_app.assembly import check_identity
from serve_app.certificate import Certificate, CertificateError, checked
from serve_app.engine import check_source
from serve_app.environment import Secrets, data_dir, must_be_local
from serve_app.errors import StoreUnavailable
from serve_app.haproxy import CERT_ENV, KEY_ENV
from serve_app.settings import Settings, SettingsError
from serve_app.store import Store, claim_folder

IMPORT_PATH = "serve_app.app:build"
STORE_MS = 3_000
MAX_PORT = 65_535
CERT, KEY = "ssl_certfile", "ssl_keyfile"
NOT_OURS = {
    "ssl_keyfile_password": "an encrypted key is not supported; store it plain, readable by this "
    "user alone",
    "ssl_ca_certs": "clients are known by key or token, not by certificate; remove it",
}


class CannotStartError(Exception):
    """Known before anything was started; one line that names the cause and the mend."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to start.

    Attributes:
        config: the whole of serve_config.yaml, with the command line's changes.
        settings: ours in it.
        host, port: where the gate listens.
        certificate: what it speaks TLS with; None: plain HTTP.
    """

    config: dict[str, Any]
    settings: Settings
    host: str
    port: int
    certificate: Certificate | None = None

    @property
    def address(self) -> str:
        """The address by which a client on this machine reaches the gate."""
        return "127.0.0.1" if self.host == "0.0.0.0" else self.host

    @property
    def url(self) -> str:
        """Where a client on this machine reaches the gate."""
        return f"http{'s' if self.certificate else ''}://{self.address}:{self.port}"

    def config_for(self, *, haproxy: bool) -> dict[str, Any]:
        """Return the config for Serve behind HAProxy, or in front itself.

        Behind HAProxy all that Serve listens on is on loopback and speaks plain HTTP: the address
        and TLS are the front's.
        """
        http = {
            name: told for name, told in self.config["http_options"].items() if name[:4] != "ssl_"
        }
        if haproxy:
            http["host"] = "127.0.0.1"
        elif self.certificate:
            http |= {CERT: str(self.certificate.cert), KEY: str(self.certificate.key)}
        return {**self.config, "http_options": http}


def plan(
    config: Path, *, engine: str | None = None, port: int | None = None, host: str | None = None
) -> Plan:
    """Return what to start, after every check that needs nothing started.

    Raises:
        CannotStartError: naming the file, the setting or the port at fault.
    """
    whole = _loaded(config)
    application = _ours(whole, config)
    args = application["args"] = application.get("args") or {}
    http = whole["http_options"] = whole.get("http_options") or {}
    http["host"] = host or http.get("host", "127.0.0.1")
    http["port"] = port or http.get("port", 8000)
    try:
        secrets = Secrets.from_environ()
        settings = Settings.from_args(args)
        if engine is not None:
            args["models"] = _with_engine(settings, engine)
            settings = Settings.from_args(args)
        for model in settings.models:
            check_source(model)
        if settings.auth.disabled or secrets.disable_auth:
            must_be_local(http["host"], settings.auth)
        check_identity(settings, os.environ)
    except SettingsError as err:
        raise CannotStartError(f"{config}: {err}") from None
    _must_be_http_alone(whole, config)
    certificate = _certificate(http, config)
    _must_be_free(http["host"], http["port"])
    if url := Secrets.from_environ().store_url or settings.store.url:
        asyncio.run(_must_answer(url))
    else:
        _must_be_ours(data_dir(settings.store) / "store")
    return Plan(whole, settings, http["host"], http["port"], certificate)


def settings_of(config: Path) -> Settings:
    """Return our settings in a config file.

    Raises:
        CannotStartError: naming the file or the setting at fault.
    """
    application = _ours(_loaded(config), config)
    try:
        return Settings.from_args(application.get("args") or {})
    except SettingsError as err:
        raise CannotStartError(f"{config}: {err}") from None


def _loaded(config: Path) -> dict[str, Any]:
    try:
        whole = yaml.safe_load(config.read_text())
    except OSError as err:
        raise CannotStartError(f"{config}: {err.strerror}") from None
    except yaml.YAMLError as err:
        raise CannotStartError(f"{config} is not YAML: {' '.join(str(err).split())}") from None
    if not isinstance(whole, dict):
        raise CannotStartError(f"{config} is not a Serve config file (no 'applications')")
    return whole


def _ours(whole: dict[str, Any], config: Path) -> dict[str, Any]:
    applications = whole.get("applications") or []
    if not all(isinstance(one, dict) for one in applications):
        raise CannotStartError(f"{config}: each of 'applications' must be a block of settings")
    found = [one for one in applications if one.get("import_path") == IMPORT_PATH]
    if len(found) != 1:
        raise CannotStartError(
            f"{config}: needs one application with 'import_path: {IMPORT_PATH}', has {len(found)}"
        )
    ours: dict[str, Any] = found[0]
    return ours


def _must_be_http_alone(whole: dict[str, Any], config: Path) -> None:
    """Refuse a second protocol: gRPC would reach Serve past every check of ours."""
    if (whole.get("grpc_options") or {}).get("grpc_servicer_functions"):
        raise CannotStartError(f"{config}: grpc_options: the gate speaks HTTP alone; remove it")


def _certificate(http: dict[str, Any], config: Path) -> Certificate | None:
    """Return the certificate that ``http_options`` name, or else the environment."""
    for name in http:
        if name.startswith(("ssl", "tls")) and name not in {CERT, KEY, *NOT_OURS}:
            raise CannotStartError(
                f"{config}: http_options.{name}: no such option; TLS is {CERT} and {KEY}"
            )
    for name, why in NOT_OURS.items():
        if http.get(name):
            raise CannotStartError(f"{config}: http_options.{name}: {why}")
    if http.get(CERT) or http.get(KEY):
        cert, key, where = http.get(CERT), http.get(KEY), f"{config}: http_options."
        fields = (where + CERT, where + KEY)
    else:
        cert, key = os.environ.get(CERT_ENV), os.environ.get(KEY_ENV)
        fields = (CERT_ENV, KEY_ENV)
    try:
        return checked(cert, key, fields=fields, now=datetime.datetime.now(datetime.UTC))
    except CertificateError as err:
        raise CannotStartError(str(err)) from None


def _with_engine(settings: Settings, engine: str) -> list[dict[str, Any]]:
    """Return the models of ``settings`` as the config file would name them, all on ``engine``."""
    models = [model.model_dump(exclude_unset=True) for model in settings.models]
    return [{**model, "engine": engine} for model in models]


async def _must_answer(url: str) -> None:
    store = Store(url, timeout_ms=STORE_MS)
    try:
        await store.ping()
    except StoreUnavailable as err:
        why = str(err).removesuffix("; try again shortly.")
        raise CannotStartError(f"{why}; see SLUICEGATE_STORE_URL or args.store.url") from None
    finally:
        await store.close()


def _must_be_free(host: str, port: object) -> None:
    if not isinstance(port, int) or not 0 < port <= MAX_PORT:
        raise CannotStartError(f"port {port} is not a port: choose 1 to {MAX_PORT}")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as err:
            if err.errno == errno.EADDRINUSE:
                why = "is in use; stop what listens there, or choose another PORT"
            else:
                why = f"cannot be listened on: {err.strerror}; choose another HOST or PORT"
            raise CannotStartError(f"port {port} on {host} {why}") from None


def _must_be_ours(folder: Path) -> None:
    try:
        claim_folder(folder, wait_s=1.0).close()
    except RuntimeError as err:
        raise CannotStartError(str(err)) from None
    except OSError as err:
        raise CannotStartError(f"the data folder {folder}: {err.strerror}") from None
