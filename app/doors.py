"""What the configuration says of the doors: their addresses, their TLS, and what each bears."""

from dataclasses import dataclass
from pathlib import Path

from app import values
from app.settings import Settings
from app.values import Address
from archive.bounds import read_networks
from web.limits import Limits

_EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104 (compared with, not bound)


@dataclass(frozen=True, slots=True)
class Door:
    """One listener; with `tls_cert` it speaks TLS."""

    address: Address
    tls_cert: Path | None
    tls_key: Path | None
    tls_client_ca: Path | None

    @property
    def url(self) -> str:
        """Its address as a URL, as far as it is known before it listens."""
        return f"{'https' if self.tls_cert else 'http'}://{self.address}"

    @classmethod
    def from_toml(cls, settings: Settings, name: str) -> "Door":
        """Read the keys of one door out of `[doors]`."""
        address = settings.parsed(name, lambda text: values.address(text, settings.folder))
        cert = settings.optional_path(f"{name}_tls_cert")
        key = settings.optional_path(f"{name}_tls_key")
        client_ca = settings.optional_path(f"{name}_tls_client_ca")
        if key and not cert:
            settings.fail(f"{name}_tls_cert", "is needed with the key")
        if cert and not key:
            settings.fail(f"{name}_tls_key", "is needed with the certificate")
        if client_ca and not cert:
            settings.fail(f"{name}_tls_cert", "is needed before clients can show certificates")
        return cls(address, cert, key, client_ca)


@dataclass(frozen=True, slots=True)
class Doors:
    """The three listeners. `retrieval_url` is how people reach the retrieval door.

    "" means: at the address that it listens on. `bears` is what each of them bears.
    """

    ingest: Door
    retrieval: Door
    operations: Door
    retrieval_url: str
    bears: Limits

    @property
    def named(self) -> dict[str, Door]:
        """Each by its name."""
        return {name: getattr(self, name) for name in ("ingest", "retrieval", "operations")}

    @classmethod
    def from_toml(cls, settings: Settings) -> "Doors":
        """Read `[doors]`."""
        names = ("ingest", "retrieval", "operations")
        ingest, retrieval, operations = (Door.from_toml(settings, name) for name in names)
        taken: set[Address] = set()
        for name, door in zip(names, (ingest, retrieval, operations), strict=True):
            if (door.address.port or door.address.socket) and door.address in taken:
                settings.fail(name, "is the address of another door; each has its own")
            taken.add(door.address)
        url = settings.parsed("retrieval_url", values.optional_web_address)
        if not url and (retrieval.address.socket or retrieval.address.host in _EVERYWHERE):
            settings.fail(
                "retrieval_url",
                "say how people reach the retrieval door: its own address does not tell",
            )
        return cls(ingest, retrieval, operations, url, _bears(settings))


def _bears(settings: Settings) -> Limits:
    return Limits(
        settings.whole("connections", 1, 100_000),
        settings.whole("connections_per_address", 1, 100_000),
        settings.parsed("proxies", lambda text: read_networks(text) if text else ()),
    )
