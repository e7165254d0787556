"""Certificates for tests: an authority of one's own, and what it signs."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID


def _key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.PEM)


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate and its key, as PEM."""

    certificate: x509.Certificate
    cert: bytes
    key: bytes

    def write(self, cert: Path, key: Path) -> None:
        cert.write_bytes(self.cert)
        key.write_bytes(self.key)


@dataclass(frozen=True, slots=True)
class Authority:
    """One that signs; `pem` is what is to be trusted."""

    name: str
    key: ec.EllipticCurvePrivateKey = field(default_factory=_key)

    def _sign(
        self, name: str, key: ec.EllipticCurvePrivateKey, left: timedelta, *, authority: bool
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        alternatives = [x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]
        return (
            x509.CertificateBuilder(_name(self.name), _name(name), key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=30))
            .not_valid_after(now + left)
            .add_extension(x509.BasicConstraints(authority, None), critical=True)
            .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
            .sign(self.key, hashes.SHA256())
        )

    def pem(self, left: timedelta = timedelta(days=365)) -> bytes:
        return _pem(self._sign(self.name, self.key, left, authority=True))

    def issue(self, left: timedelta = timedelta(days=90), *, name: str = "localhost") -> Issued:
        key = _key()
        certificate = self._sign(name, key, left, authority=False)
        form = Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
        return Issued(certificate, _pem(certificate), key.private_bytes(*form))
