from __future__ import annotations

import os
import ssl
import warnings
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, cast

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from wellhead.tls import ClientCertificate, Trust, ca_certs, file_problems, refused_us

if TYPE_CHECKING:
    from pathlib import Path

HOST: Final = "sink.example"
HANDSHAKE_ROUNDS: Final = 10
PASSWORD: Final = "hunter2 hunter2"
COMMENT: Final = "# Főtanúsítvány\n"


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def handshake(
    client_context: ssl.SSLContext,
    authority: trustme.CA,
    *,
    newest: ssl.TLSVersion | None = None,
    host: str = HOST,
    until: datetime | None = None,
) -> str | None:
    """The TLS version that a client and a server of ``authority`` agree on, through memory; raises what the client does."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(HOST, not_after=until).configure_cert(context)
    if newest is not None:
        context.set_ciphers("DEFAULT:@SECLEVEL=0")  # else OpenSSL itself refuses to serve what is old
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            context.minimum_version = context.maximum_version = newest
    client, _ = shaken(client_context, context, host)
    return client.version()


def shown(client_context: ssl.SSLContext, authority: trustme.CA, trusted: trustme.CA) -> str:
    """The name on the certificate that the client shows to a server that asks for one of ``trusted``."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_OPTIONAL
    authority.issue_cert(HOST).configure_cert(context)
    trusted.configure_trust(context)
    _, server = shaken(client_context, context, HOST)
    names = cast("tuple[tuple[str, str], ...]", (server.getpeercert() or {}).get("subjectAltName", ()))
    return " ".join(name for _, name in names)


def shaken(
    client_context: ssl.SSLContext, server_context: ssl.SSLContext, host: str
) -> tuple[ssl.SSLObject, ssl.SSLObject]:
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
            return client, server
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


@pytest.mark.parametrize("old", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
def test_what_is_older_is_refused(authority: trustme.CA, tmp_path: Path, old: ssl.TLSVersion) -> None:
    with pytest.raises(ssl.SSLError, match=r"(?i)protocol|version"):
        handshake(Trust(pem(authority), tmp_path).context(), authority, newest=old)


def test_an_expired_certificate_is_refused(authority: trustme.CA, tmp_path: Path) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match=r"expired"):
        handshake(Trust(pem(authority), tmp_path).context(), authority, until=datetime(2020, 1, 1, tzinfo=UTC))


def test_http_1_1_is_what_is_offered(authority: trustme.CA, tmp_path: Path) -> None:
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(HOST).configure_cert(server_context)
    server_context.set_alpn_protocols(["h2", "http/1.1"])
    client, _ = shaken(Trust(pem(authority), tmp_path).context(), server_context, HOST)
    assert client.selected_alpn_protocol() == "http/1.1"


def test_an_intermediate_certificate_is_an_anchor_where_it_is_given_as_one(
    authority: trustme.CA, tmp_path: Path
) -> None:
    child = authority.create_child_ca()
    assert handshake(Trust(pem(child), tmp_path).context(), child) == "TLSv1.3"


def test_details_of_rfc_5280_that_private_cas_leave_out_are_not_asked_for(tmp_path: Path) -> None:
    assert not Trust("", tmp_path).context().verify_flags & ssl.VERIFY_X509_STRICT


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


def test_where_no_bundles_are_mounted_nothing_is_amiss(tmp_path: Path) -> None:
    assert Trust(bundles=tmp_path / "missing").context().verify_mode is ssl.CERT_REQUIRED


def test_certificates_that_are_none_are_told_when_the_context_is_made(tmp_path: Path) -> None:
    with pytest.raises(ssl.SSLError, match=r"^K_CA_CERTS is not a PEM certificate"):
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


# --- Files that change


class Watch:
    """A clock that only goes when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def second(self) -> None:
        self.now += 1.0


def write_client(to: Path, authority: trustme.CA, name: str, *, password: str = "") -> ClientCertificate:
    """A client certificate of ``authority`` in files of the folder ``to``."""
    leaf = authority.issue_cert(name)
    to.mkdir(exist_ok=True)
    (to / "tls.crt").write_bytes(b"".join(chain.bytes() for chain in leaf.cert_chain_pems))
    key = leaf.private_key_pem.bytes()
    if password:
        encryption = BestAvailableEncryption(password.encode())
        key = load_pem_private_key(key, None).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
        (to / "password").write_text(password + "\n")
    (to / "tls.key").write_bytes(key)
    return ClientCertificate(
        cert=to / "tls.crt", key=to / "tls.key", password_file=to / "password" if password else None
    )


class TestTheClientCertificate:
    @pytest.mark.parametrize("password", ["", PASSWORD])
    def test_it_is_shown_to_a_sink_that_asks_also_with_an_encrypted_key(
        self, authority: trustme.CA, tmp_path: Path, password: str
    ) -> None:
        client = write_client(tmp_path / "client", authority, "me.example", password=password)
        trust = Trust(pem(authority), tmp_path / "none", client=client)
        assert shown(trust.context(), authority, authority) == "me.example"

    def test_one_file_may_hold_certificate_and_key(self, authority: trustme.CA, tmp_path: Path) -> None:
        (tmp_path / "both.pem").write_bytes(authority.issue_cert("me.example").private_key_and_cert_chain_pem.bytes())
        trust = Trust(pem(authority), tmp_path / "none", client=ClientCertificate(cert=tmp_path / "both.pem"))
        assert shown(trust.context(), authority, authority) == "me.example"

    def test_without_one_none_is_shown(self, authority: trustme.CA, tmp_path: Path) -> None:
        assert shown(Trust(pem(authority), tmp_path).context(), authority, authority) == ""

    def test_a_renewed_one_makes_another_context_within_a_second(self, authority: trustme.CA, tmp_path: Path) -> None:
        watch = Watch()
        client = write_client(tmp_path / "client", authority, "old.example")
        trust = Trust(pem(authority), tmp_path / "none", client=client, now=watch)
        before = trust.context()
        write_client(tmp_path / "client", authority, "new.example")
        assert trust.context() is before
        watch.second()
        assert shown(trust.context(), authority, authority) == "new.example"
        assert shown(before, authority, authority) == "old.example"

    def test_a_new_certificate_beside_the_old_key_breaks_nothing_and_is_told_once(
        self, authority: trustme.CA, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        watch = Watch()
        client = write_client(tmp_path / "client", authority, "old.example")
        trust = Trust(pem(authority), tmp_path / "none", client=client, now=watch)
        before = trust.context()
        write_client(tmp_path / "next", authority, "new.example")
        (tmp_path / "next/tls.crt").replace(client.cert)
        for _ in range(3):
            watch.second()
            trust.reread()
            assert trust.context() is before
        assert [vars(record)["problem"] for record in caplog.records] == [
            "the client certificate's key is not the one of the certificate"
        ]
        (tmp_path / "next/tls.key").replace(tmp_path / "client/tls.key")
        watch.second()
        assert shown(trust.context(), authority, authority) == "new.example"
        assert len(caplog.records) == 1

    @pytest.mark.parametrize("lost", ["tls.crt", "tls.key", "password"])
    def test_a_file_that_goes_away_breaks_nothing_and_is_told_by_name(
        self, authority: trustme.CA, tmp_path: Path, lost: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        watch = Watch()
        client = write_client(tmp_path / "client", authority, "me.example", password=PASSWORD)
        trust = Trust(pem(authority), tmp_path / "none", client=client, now=watch)
        before = trust.context()
        (tmp_path / "client" / lost).unlink()
        watch.second()
        assert trust.context() is before
        assert [vars(record)["problem"] for record in caplog.records] == [f"{tmp_path / 'client' / lost} is not there"]

    @pytest.mark.parametrize("password", [None, "another", ""])
    def test_an_encrypted_key_without_its_password_is_told_and_asks_no_terminal(
        self, authority: trustme.CA, tmp_path: Path, password: str | None, caplog: pytest.LogCaptureFixture
    ) -> None:
        client = write_client(tmp_path / "client", authority, "me.example", password=PASSWORD)
        given = tmp_path / "given"
        given.write_text(password or "")
        client = ClientCertificate(
            cert=client.cert, key=client.key, password_file=given if password is not None else None
        )
        with pytest.raises(ssl.SSLError, match=r"not the key's password") as told:
            Trust("", tmp_path / "none", client=client).context()
        assert PASSWORD not in f"{told.value}{caplog.text}"

    def test_a_mount_that_kubernetes_swaps_is_noticed(self, authority: trustme.CA, tmp_path: Path) -> None:
        watch = Watch()
        for version in ("old", "new"):
            write_client(tmp_path / f"..{version}", authority, f"{version}.example")
        data = tmp_path / "..data"
        data.symlink_to("..old")
        for name in ("tls.crt", "tls.key"):
            (tmp_path / name).symlink_to(f"..data/{name}")
        client = ClientCertificate(cert=tmp_path / "tls.crt", key=tmp_path / "tls.key")
        trust = Trust(pem(authority), tmp_path / "none", client=client, now=watch)
        assert shown(trust.context(), authority, authority) == "old.example"
        (tmp_path / "..data_tmp").symlink_to("..new")
        (tmp_path / "..data_tmp").replace(data)
        watch.second()
        assert shown(trust.context(), authority, authority) == "new.example"


class TestWhatIsTrusted:
    def test_a_bundle_that_is_mounted_later_is_trusted_within_a_second(
        self, authority: trustme.CA, tmp_path: Path
    ) -> None:
        watch = Watch()
        trust = Trust(bundles=tmp_path, now=watch)
        before = trust.context()
        (tmp_path / "new.pem").write_text(pem(authority), encoding="ascii")
        assert trust.context() is before
        watch.second()
        assert handshake(trust.context(), authority) == "TLSv1.3"

    def test_a_bundle_that_goes_away_is_trusted_no_longer(self, authority: trustme.CA, tmp_path: Path) -> None:
        watch = Watch()
        (tmp_path / "old.pem").write_text(pem(authority), encoding="ascii")
        trust = Trust(bundles=tmp_path, now=watch)
        assert handshake(trust.context(), authority) == "TLSv1.3"
        (tmp_path / "old.pem").unlink()
        watch.second()
        with pytest.raises(ssl.SSLCertVerificationError):
            handshake(trust.context(), authority)

    def test_a_replaced_ca_file_is_all_that_is_trusted(self, authority: trustme.CA, tmp_path: Path) -> None:
        watch, other, file = Watch(), trustme.CA(), tmp_path / "ca.pem"
        file.write_text(COMMENT + pem(authority), encoding="utf-8")
        trust = Trust(bundles=tmp_path / "none", ca_file=file, now=watch)
        assert handshake(trust.context(), authority) == "TLSv1.3"
        file.write_text(pem(other), encoding="ascii")
        watch.second()
        assert handshake(trust.context(), other) == "TLSv1.3"
        with pytest.raises(ssl.SSLCertVerificationError):
            handshake(trust.context(), authority)

    @pytest.mark.parametrize("broken", [b"", b"-----BEGIN CERTIFICATE-----\nAAAA", b"\xff"])
    def test_half_a_ca_file_leaves_the_whole_one_in_use(
        self, authority: trustme.CA, tmp_path: Path, broken: bytes, caplog: pytest.LogCaptureFixture
    ) -> None:
        watch, file = Watch(), tmp_path / "ca.pem"
        file.write_text(pem(authority), encoding="ascii")
        trust = Trust(bundles=tmp_path / "none", ca_file=file, now=watch)
        before = trust.context()
        for more in (b"", b"A"):  # as it is being written
            file.write_bytes(broken + more)
            watch.second()
            assert trust.context() is before
        (record,) = caplog.records
        assert str(file) in vars(record)["problem"]

    def test_the_systems_roots_are_followed_as_well(
        self, authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        watch, roots = Watch(), tmp_path / "roots.pem"
        roots.write_text(pem(trustme.CA()), encoding="ascii")
        monkeypatch.setenv("SSL_CERT_FILE", str(roots))
        monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "none"))
        trust = Trust(bundles=tmp_path / "none", now=watch)
        with pytest.raises(ssl.SSLCertVerificationError):
            handshake(trust.context(), authority)
        roots.write_text(pem(authority), encoding="ascii")
        watch.second()
        assert handshake(trust.context(), authority) == "TLSv1.3"

    def test_a_file_that_was_only_touched_makes_no_other_context(self, authority: trustme.CA, tmp_path: Path) -> None:
        watch, file = Watch(), tmp_path / "ca.pem"
        file.write_text(pem(authority), encoding="ascii")
        trust = Trust(bundles=tmp_path / "none", ca_file=file, now=watch)
        before = trust.context()
        os.utime(file, ns=(1, 1))
        watch.second()
        assert trust.context() is before
        trust.reread()
        assert trust.context() is before

    def test_a_reread_sees_at_once_what_has_the_same_stamp(self, authority: trustme.CA, tmp_path: Path) -> None:
        watch, file, other = Watch(), tmp_path / "ca.pem", trustme.CA()
        size = max(len(pem(authority)), len(pem(other)))
        file.write_text(pem(authority).ljust(size), encoding="ascii")
        facts = file.stat()
        trust = Trust(bundles=tmp_path / "none", ca_file=file, now=watch)
        before = trust.context()
        file.write_text(pem(other).ljust(size), encoding="ascii")
        os.utime(file, ns=(facts.st_atime_ns, facts.st_mtime_ns))
        watch.second()
        assert trust.context() is before
        trust.reread()
        assert handshake(trust.context(), other) == "TLSv1.3"

    def test_what_was_wrong_from_the_start_is_told_and_then_works(self, authority: trustme.CA, tmp_path: Path) -> None:
        watch, file = Watch(), tmp_path / "ca.pem"
        trust = Trust(bundles=tmp_path / "none", ca_file=file, now=watch)
        for _ in range(2):
            with pytest.raises(ssl.SSLError, match=r"ca\.pem is not there$"):
                trust.context()
        file.write_text(pem(authority), encoding="ascii")
        watch.second()
        assert handshake(trust.context(), authority) == "TLSv1.3"


def test_every_file_that_is_wrong_at_the_start_is_told(authority: trustme.CA, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nothing")
    client = ClientCertificate(cert=tmp_path, key=tmp_path / "tls.key")
    assert list(map(str, file_problems(tmp_path / "ca.pem", client))) == [
        f"SINK_CA_FILE: {tmp_path / 'ca.pem'} is not a PEM certificate (-----BEGIN CERTIFICATE-----…)",
        f"SINK_CLIENT_CERT_FILE: {tmp_path} is not a file that can be read again",
    ]


def test_files_that_are_as_they_should_be_are_no_problem(authority: trustme.CA, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text(pem(authority), encoding="ascii")
    client = write_client(tmp_path / "client", authority, "me.example")
    assert file_problems(tmp_path / "ca.pem", client) == []
    assert file_problems(None, None) == []


def ssl_error(reason: str | None) -> ssl.SSLError:
    error = ssl.SSLError(1, "words")
    error.reason = reason  # type: ignore[assignment]  # None where OpenSSL gives none
    return error


@pytest.mark.parametrize(
    ("error", "refused"),
    [
        (ssl_error("TLSV13_ALERT_CERTIFICATE_REQUIRED"), True),
        (ssl_error("SSLV3_ALERT_BAD_CERTIFICATE"), True),
        (ssl_error("SSLV3_ALERT_CERTIFICATE_EXPIRED"), True),
        (ssl_error("TLSV1_ALERT_UNKNOWN_CA"), True),
        (ssl_error("TLSV1_ALERT_DECRYPT_ERROR"), True),
        (ssl_error("TLSV1_ALERT_INTERNAL_ERROR"), False),
        (ssl_error("APPLICATION_DATA_AFTER_CLOSE_NOTIFY"), False),
        (ssl_error(None), False),
        (ConnectionResetError(), False),
        (None, False),
    ],
)
def test_an_alert_about_our_certificate_is_told_from_a_broken_connection(
    error: BaseException | None, *, refused: bool
) -> None:
    assert refused_us(error) is refused
