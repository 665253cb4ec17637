"""Certificates for tests: an authority, and what it issues, as PEM files."""

from dataclasses import dataclass
from pathlib import Path

import trustme

from dualpool.dev.processes import Identity


@dataclass(frozen=True)
class KeyPair:
    """A certificate and its key, as files. Both belong to whoever must read them, and only they can."""

    cert: Path
    key: Path


class Certificates:
    """A certificate authority of its own in `folder`; `ca` is its certificate as a file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = trustme.CA()
        self.ca = folder / "ca.crt"
        self.authority.cert_pem.write_to_path(str(self.ca))

    def issue(self, *names: str, common_name: str | None = None, owner: Identity | None = None) -> KeyPair:
        """A certificate for host names, addresses, or (with `common_name`) for a user."""
        issued = self.authority.issue_cert(*names, common_name=common_name)
        stem = (common_name or names[0]).replace("*", "_")
        pair = KeyPair(self.folder / f"{stem}.crt", self.folder / f"{stem}.key")
        for path in (pair.cert, pair.key):
            path.touch(mode=0o600)
            if owner is not None:
                owner.own(path)
        issued.private_key_pem.write_to_path(str(pair.key))
        pair.cert.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        return pair
