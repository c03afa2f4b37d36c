from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Final

import pytest
import trustme

from wellhead.tls import Trust, ca_certs

if TYPE_CHECKING:
    from pathlib import Path

HOST: Final = "sink.example"
HANDSHAKE_ROUNDS: Final = 10
COMMENT: Final = "# Főtanúsítvány\n"


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def handshake(
    client_context: ssl.SSLContext, authority: trustme.CA, *, newest: ssl.TLSVersion | None = None, host: str = HOST
) -> str | None:
    """The TLS version that a client and a server of ``authority`` agree on, through memory; raises what the client does."""
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(HOST).configure_cert(server_context)
    if newest is not None:
        server_context.minimum_version = server_context.maximum_version = newest
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context.wrap_bio(to_client, to_server, server_hostname=host)
    server = server_context.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(HANDSHAKE_ROUNDS):
        done = 0
        for side in (client, server):
            try:
                side.do_handshake()
                done += 1
            except ssl.SSLWantReadError:
                pass
        if done == 2:
            return client.version()
    raise AssertionError("the handshake does not end")


def pem(authority: trustme.CA) -> str:
    return authority.cert_pem.bytes().decode()


def test_k_ca_certs_are_trusted(authority: trustme.CA, tmp_path: Path) -> None:
    assert handshake(Trust(pem(authority), tmp_path).context(), authority) == "TLSv1.3"


@pytest.mark.parametrize("text", ["", "other"])
def test_what_nobody_vouches_for_is_not_trusted(authority: trustme.CA, tmp_path: Path, text: str) -> None:
    trusted = pem(trustme.CA()) if text else ""
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(Trust(trusted, tmp_path).context(), authority)


def test_the_host_name_is_verified(authority: trustme.CA, tmp_path: Path) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match=r"[Hh]ostname"):
        handshake(Trust(pem(authority), tmp_path).context(), authority, host="other.example")


def test_tls_1_2_is_the_oldest_that_is_spoken(authority: trustme.CA, tmp_path: Path) -> None:
    context = Trust(pem(authority), tmp_path).context()
    assert handshake(context, authority, newest=ssl.TLSVersion.TLSv1_2) == "TLSv1.2"
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2


def test_every_certificate_of_a_text_is_trusted_whatever_language_its_comments_are_in(tmp_path: Path) -> None:
    first, second = trustme.CA(), trustme.CA()
    context = Trust(COMMENT + pem(first) + COMMENT + pem(second), tmp_path).context()
    assert [handshake(context, authority) for authority in (first, second)] == ["TLSv1.3", "TLSv1.3"]


@pytest.mark.parametrize("name", ["bundle.pem", "ca-bundle/ca.crt"])
def test_knatives_trust_bundles_are_trusted_in_whatever_folder(
    authority: trustme.CA, tmp_path: Path, name: str
) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(pem(authority), encoding="ascii")
    assert handshake(Trust(bundles=tmp_path).context(), authority) == "TLSv1.3"


@pytest.mark.parametrize("broken", [b"", b"no certificate", b"\xff\x00"])
def test_a_bundle_that_cannot_be_read_is_left_out_and_the_others_are_trusted(
    authority: trustme.CA, tmp_path: Path, broken: bytes
) -> None:
    (tmp_path / "a-broken.pem").write_bytes(broken)
    (tmp_path / "b.pem").write_text(pem(authority), encoding="ascii")
    assert handshake(Trust(bundles=tmp_path).context(), authority) == "TLSv1.3"


def test_a_bundle_that_was_renewed_is_trusted_once_it_is_read_again(authority: trustme.CA, tmp_path: Path) -> None:
    trust = Trust(bundles=tmp_path)
    before = trust.context()
    (tmp_path / "new.pem").write_text(pem(authority), encoding="ascii")
    assert trust.context() is before
    trust.reread()
    assert handshake(trust.context(), authority) == "TLSv1.3"


def test_where_no_bundles_are_mounted_nothing_is_amiss(tmp_path: Path) -> None:
    assert Trust(bundles=tmp_path / "missing").context().verify_mode is ssl.CERT_REQUIRED


def test_certificates_that_are_none_are_told_when_the_context_is_made(tmp_path: Path) -> None:
    with pytest.raises(ssl.SSLError):
        Trust("no certificate", tmp_path).context()


@pytest.mark.parametrize("comment", ["", COMMENT])
def test_ca_certs_takes_pem_text_and_the_text_it_gives_is_trusted(
    authority: trustme.CA, tmp_path: Path, comment: str
) -> None:
    text = ca_certs(comment + pem(authority))
    assert handshake(Trust(text, tmp_path).context(), authority) == "TLSv1.3"


@pytest.mark.parametrize(
    "text", ["", "no certificate", "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n", "\x00", "é"]
)
def test_ca_certs_refuses_what_is_no_pem_and_does_not_repeat_it(text: str) -> None:
    with pytest.raises(ValueError, match=r"^is not a PEM certificate \(-----BEGIN CERTIFICATE-----…\)$"):
        ca_certs(text)
