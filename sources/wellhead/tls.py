"""Which certificates to trust for an https sink: the system's, ``K_CA_CERTS``, and Knative's trust bundles."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Final

TRUST_BUNDLES: Final = Path("/knative-custom-certs")
"""Where Knative mounts trust bundles (contract/core.md 3.2)."""


class Trust:
    """The SSL context for a sink's certificates; made when first asked for (21 ms), and again after `reread`.

    Host names are always verified; TLS is 1.2 or newer. A bundle file that cannot be read is left out.
    """

    def __init__(self, ca_certs: str = "", bundles: Path = TRUST_BUNDLES) -> None:
        self._ca_certs = ca_certs
        self._bundles = bundles
        self._context: ssl.SSLContext | None = None

    def context(self) -> ssl.SSLContext:
        """Raises ssl.SSLError where ``K_CA_CERTS`` holds no certificate."""
        if self._context is None:
            context = ssl.create_default_context()
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            for bundle in sorted(self._bundles.rglob("*")) if self._bundles.is_dir() else ():
                _add(context, bundle)
            if self._ca_certs:
                context.load_verify_locations(cadata=_pem(self._ca_certs))
            self._context = context
        return self._context

    def reread(self) -> None:
        """The next `context` reads the bundles again; called when a handshake failed and while a sink is held."""
        self._context = None


def ca_certs(text: str) -> str:
    """``K_CA_CERTS``: PEM text. Raises ValueError with the rule; checked at start, not at the first event.

    Comments between certificates may be in any language, which ssl does not like: they lose what is not ASCII.
    """
    text = text.encode("ascii", "replace").decode()
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=_pem(text))
    except (ssl.SSLError, ValueError):
        raise ValueError("is not a PEM certificate (-----BEGIN CERTIFICATE-----…)") from None
    return text


def _pem(text: str) -> str:
    """``text`` without what is not ASCII: people's comments between certificates, at which `ssl` raises TypeError."""
    return text.encode("ascii", "ignore").decode()


def _add(context: ssl.SSLContext, bundle: Path) -> None:
    try:
        context.load_verify_locations(cafile=str(bundle))
    except (OSError, ssl.SSLError):
        return
