"""The TLS certificate and its key, looked at before anything starts.

What a server would say of a wrong pair, minutes later and in its own words, is said here at once.
"""

import datetime
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography import x509


class CertificateError(Exception):
    """Names the setting at fault, and the mend."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """A pair that fits.

    Attributes:
        cert, key: absolute paths of the two PEM files.
        names: the host names and addresses it is for.
    """

    cert: Path
    key: Path
    names: tuple[str, ...]


def checked(
    cert: str | None, key: str | None, *, fields: tuple[str, str], now: datetime.datetime
) -> Certificate | None:
    """Return the certificate at these paths; None if neither is told.

    Args:
        cert: path of a PEM file with the certificate, and the chain after it.
        key: path of a PEM file with its private key.
        fields: what the two settings are called.
        now: the time at which it must be valid.

    Raises:
        CertificateError: one is missing or unreadable, they do not fit, the certificate is not
            valid now, or the key is encrypted.
    """
    if not cert and not key:
        return None
    for told, field, other in ((cert, fields[0], fields[1]), (key, fields[1], fields[0])):
        if not told:
            raise CertificateError(f"{field}: missing; {other} needs it beside it")
    cert_path, key_path = (Path(str(told)).expanduser().absolute() for told in (cert, key))
    leaf = _leaf(_read(cert_path, fields[0]), fields[0], now)
    if _public_key(_read(key_path, fields[1]), key_path, fields[1]) != _spki(leaf.public_key()):
        raise CertificateError(
            f"{fields[1]}: {key_path} is not the key of the certificate {cert_path}"
        )
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert_path, key_path)
    except ssl.SSLError as err:
        raise CertificateError(f"{fields[0]}: OpenSSL does not take it: {err.reason}") from None
    return Certificate(cert_path, key_path, _names(leaf))


def trusting(certificate: Certificate) -> ssl.SSLContext:
    """Return what a client needs that asks the holder of this certificate, and nobody else.

    The name is not looked at: we ask our own server by its address.
    """
    context = ssl.create_default_context(cafile=certificate.cert)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # the certificate itself is trusted
    return context


def _read(path: Path, field: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as err:
        raise CertificateError(f"{field}: {path}: {err.strerror}") from None


def _leaf(pem: bytes, field: str, now: datetime.datetime) -> "x509.Certificate":
    from cryptography import x509  # noqa: PLC0415 - most gates have no certificate

    try:
        leaf = x509.load_pem_x509_certificates(pem)[0]
    except ValueError:
        raise CertificateError(f"{field}: not a certificate in PEM form") from None
    if now > leaf.not_valid_after_utc:
        raise CertificateError(f"{field}: expired on {leaf.not_valid_after_utc:%Y-%m-%d}; renew it")
    if now < leaf.not_valid_before_utc:
        raise CertificateError(f"{field}: not valid before {leaf.not_valid_before_utc:%Y-%m-%d}")
    return leaf


def _public_key(pem: bytes, path: Path, field: str) -> bytes:
    """Return the public half of the private key in ``pem``."""
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415 - see above
    from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415 - see above
        load_pem_private_key,
    )

    try:
        return _spki(load_pem_private_key(pem, password=None).public_key())
    except TypeError:
        raise CertificateError(
            f"{field}: {path} is encrypted, which is not supported; store it plain, readable by "
            f"this user alone: openssl pkey -in {path} -out plain.pem"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise CertificateError(f"{field}: {path} is not a private key in PEM form") from None


def _spki(public_key: object) -> bytes:
    from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415 - see above
        Encoding,
        PublicFormat,
    )

    told: bytes = public_key.public_bytes(  # type: ignore[attr-defined]
        Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    )
    return told


def _names(leaf: "x509.Certificate") -> tuple[str, ...]:
    from cryptography import x509  # noqa: PLC0415 - see above

    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    addresses = (str(each) for each in names.get_values_for_type(x509.IPAddress))
    return (*names.get_values_for_type(x509.DNSName), *addresses)
