"""How a sink is approached, as one value: who we are to it, and which certificates we trust beside the usual."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .credentials import NO_CREDENTIALS, CredentialSources

if TYPE_CHECKING:
    from .tls import ClientCertificate


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkAccess:
    """Credentials, client certificate and CA file for one sink."""

    credentials: CredentialSources = CredentialSources()
    client: ClientCertificate | None = None
    ca_file: Path | None = None
    dead_letters_too: bool = False
    """Whether the dead-letter sink, which may be a stranger to the sink, is shown who we are as well."""

    def for_dead_letters(self) -> SinkAccess:
        """How its dead-letter sink is approached."""
        return self if self.dead_letters_too else SinkAccess(credentials=NO_CREDENTIALS, ca_file=self.ca_file)
