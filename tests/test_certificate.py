"""The certificate and its key: a wrong pair is told at once, by its setting."""

from collections.abc import Callable
from pathlib import Path

import pytest

from serve_app.certificate import CertificateError, checked
from tests.certificates import DAY, NOW, pair

FIELDS = ("http_options.ssl_certfile", "http_options.ssl_keyfile")
Told = tuple[str | None, str | None]


def look(cert: object, key: object):
    return checked(
        cert and str(cert),  # type: ignore[arg-type]
        key and str(key),  # type: ignore[arg-type]
        fields=FIELDS,
        now=NOW,
    )


def test_a_good_pair_is_told_with_its_names(tmp_path: Path) -> None:
    """Host names and addresses come from the certificate, the paths are absolute."""
    cert, key = pair(tmp_path, names=("gate.example", "*.gate.example"))
    found = look(cert, key)
    assert found is not None
    assert (found.cert, found.key) == (cert, key)
    assert found.names == ("gate.example", "*.gate.example", "127.0.0.1")


def test_no_certificate_is_no_tls() -> None:
    """Neither told: None, and nothing is wrong."""
    assert look(None, None) is None
    assert look("", "") is None


def test_both_may_lie_in_one_file(tmp_path: Path) -> None:
    """A file that holds the certificate and its key may be named twice."""
    cert, key = pair(tmp_path)
    both = tmp_path / "both.pem"
    both.write_bytes(key.read_bytes() + cert.read_bytes())
    assert look(both, both)


def without_key(folder: Path) -> Told:
    return str(pair(folder)[0]), None


def without_cert(folder: Path) -> Told:
    return None, str(pair(folder)[1])


def nowhere(folder: Path) -> Told:
    return str(folder / "none.pem"), str(pair(folder)[1])


def key_nowhere(folder: Path) -> Told:
    return str(pair(folder)[0]), str(folder / "none.key")


def a_folder(folder: Path) -> Told:
    return str(folder), str(pair(folder)[1])


def swapped(folder: Path) -> Told:
    cert, key = pair(folder)
    return str(key), str(cert)


def no_key(folder: Path) -> Told:
    cert, _ = pair(folder)
    return str(cert), str(cert)


def strangers(folder: Path) -> Told:
    return str(pair(folder / "one")[0]), str(pair(folder / "two")[1])


def encrypted(folder: Path) -> Told:
    cert, key = pair(folder, password=b"hunter2")
    return str(cert), str(key)


def expired(folder: Path) -> Told:
    cert, key = pair(folder, begins=NOW - 3 * DAY, ends=NOW - DAY)
    return str(cert), str(key)


def early(folder: Path) -> Told:
    cert, key = pair(folder, begins=NOW + DAY, ends=NOW + 2 * DAY)
    return str(cert), str(key)


@pytest.mark.parametrize(
    ("told", "field", "says"),
    [
        (without_key, 1, "missing; http_options.ssl_certfile needs it beside it"),
        (without_cert, 0, "missing; http_options.ssl_keyfile needs it beside it"),
        (nowhere, 0, "none.pem: No such file or directory"),
        (key_nowhere, 1, "none.key: No such file or directory"),
        (a_folder, 0, "Is a directory"),
        (swapped, 0, "not a certificate in PEM form"),
        (no_key, 1, "is not a private key in PEM form"),
        (strangers, 1, "is not the key of the certificate"),
        (encrypted, 1, "is encrypted, which is not supported"),
        (expired, 0, "expired on"),
        (early, 0, "not valid before"),
    ],
)
def test_a_wrong_pair_is_named_with_its_mend(
    tmp_path: Path, told: Callable[[Path], Told], field: int, says: str
) -> None:
    """One line: the setting at fault, and what is wrong with it."""
    with pytest.raises(CertificateError) as refused:
        look(*told(tmp_path))
    assert str(refused.value).startswith(f"{FIELDS[field]}: ")
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)
