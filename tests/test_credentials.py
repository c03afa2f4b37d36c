from __future__ import annotations

import base64
import json
import os
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wellhead.credentials import NO_CREDENTIALS, Credentials, CredentialSources, bearer_token
from wellhead.errors import ConfigError

if TYPE_CHECKING:
    from wellhead.credentials import Headers

NOW: Final = 1_800_000_000
SECRET: Final = "hunter2-hunter2"
NO_TOKENS: Final = ("", "   \n", "two words", "bro\nken", "ümlaut", "x" * 20_000)


class WallClock:
    def __init__(self) -> None:
        self.seconds = float(NOW)

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.seconds, UTC)


def from_token(path: Path) -> Credentials:
    return Credentials(CredentialSources(token_file=path))


def authorization(headers: Headers) -> str | None:
    value = dict(headers).get(b"authorization")
    return None if value is None else value.decode()


def jwt(*, expires: float = NOW + 3600, issued: float = NOW, audience: str = "sink", version: int = 1) -> str:
    payload = json.dumps({"exp": expires, "iat": issued, "aud": [audience], "jti": str(version)})
    return f"{SECRET}.{base64.urlsafe_b64encode(payload.encode()).decode().rstrip('=')}.{SECRET}"


def problems(**given: object) -> list[str]:
    with pytest.raises(ConfigError) as wrong:
        replace(CredentialSources(), **given)  # type: ignore[arg-type]  # fields by name
    return list(map(str, wrong.value.problems))


class TestTheToken:
    def test_blanks_around_it_are_no_part_of_it(self, tmp_path: Path) -> None:
        (tmp_path / "token").write_text("  abc.def-_~+/==\r\n")
        assert authorization(from_token(tmp_path / "token").headers(0)) == "Bearer abc.def-_~+/=="

    @pytest.mark.parametrize("text", NO_TOKENS, ids=range(len(NO_TOKENS)))
    def test_a_file_without_one_sends_none_and_is_told_without_being_shown(
        self, text: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        (tmp_path / "token").write_text(text)
        assert from_token(tmp_path / "token").headers(0) == ()
        (record,) = caplog.records
        assert not text.strip() or text.strip() not in str(vars(record))

    def test_octets_that_are_no_text_are_no_token(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        (tmp_path / "token").write_bytes(b"\xff\xfe")
        assert from_token(tmp_path / "token").headers(0) == ()
        assert [vars(record)["problem"] for record in caplog.records] == ["is not UTF-8"]

    def test_where_there_is_no_file_none_is_sent_and_nothing_told(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        assert from_token(tmp_path / "token").headers(0) == ()
        assert caplog.records == []

    def test_its_file_is_looked_at_once_a_second_at_most(self, tmp_path: Path) -> None:
        path = tmp_path / "token"
        path.write_text("old")
        credentials = from_token(path)
        first = credentials.headers(0)
        path.write_text("newer")
        assert credentials.headers(0.9) is first
        assert authorization(credentials.headers(1.0)) == "Bearer newer"

    def test_the_headers_are_one_object_as_long_as_nothing_changes(self, tmp_path: Path) -> None:
        path = tmp_path / "token"
        path.write_text("abc")
        credentials = from_token(path)
        first = credentials.headers(0)
        os.utime(path, ns=(1, 1))
        assert credentials.headers(5) is first
        credentials.reread()
        assert credentials.headers(5) is first

    def test_a_reread_reads_it_at_once_even_if_its_stamp_is_the_same(self, tmp_path: Path) -> None:
        path = tmp_path / "token"
        path.write_text("old")
        facts = path.stat()
        credentials = from_token(path)
        credentials.headers(0)
        path.write_text("new")
        os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
        assert authorization(credentials.headers(5)) == "Bearer old"
        credentials.reread()
        assert authorization(credentials.headers(5)) == "Bearer new"

    def test_a_file_that_goes_away_takes_its_token_with_it(self, tmp_path: Path) -> None:
        path = tmp_path / "token"
        path.write_text("abc")
        credentials = from_token(path)
        assert authorization(credentials.headers(0)) == "Bearer abc"
        path.unlink()
        assert credentials.headers(1) == ()

    def test_half_a_file_leaves_the_token_in_use(self, tmp_path: Path) -> None:
        path = tmp_path / "token"
        path.write_text("abc")
        credentials = from_token(path)
        first = credentials.headers(0)
        path.write_text("")
        assert credentials.headers(1) is first

    def test_one_that_is_given_itself_beats_the_usual_file(self) -> None:
        credentials = Credentials(CredentialSources(token="given"))
        assert authorization(credentials.headers(0)) == "Bearer given"


class TestAfterA401:
    def test_a_token_that_has_changed_since_is_known_at_once(self, tmp_path: Path) -> None:
        path = tmp_path / "token"
        path.write_text("old")
        credentials = from_token(path)
        sent = credentials.headers(0)
        assert not credentials.changed_since(sent, 0)
        path.write_text("new")
        assert credentials.changed_since(sent, 0)
        assert authorization(credentials.headers(0)) == "Bearer new"

    def test_what_another_try_has_noticed_meanwhile_counts_without_a_look(self, tmp_path: Path) -> None:
        path = tmp_path / "token"
        path.write_text("old")
        credentials = from_token(path)
        sent = credentials.headers(0)
        path.write_text("new")
        renewed = credentials.headers(1)
        path.write_text("newest")
        assert credentials.changed_since(sent, 1)
        assert credentials.headers(1) is renewed

    def test_without_credentials_nothing_changes(self) -> None:
        credentials = Credentials()
        assert not credentials.changed_since(credentials.headers(0), 0)


class TestJwts:
    def test_one_that_ends_soon_is_read_anew_each_second_whatever_its_stamp(self, tmp_path: Path) -> None:
        clock, path = WallClock(), tmp_path / "token"
        path.write_text(jwt())
        facts = path.stat()
        credentials = Credentials(CredentialSources(token_file=path), clock=clock)
        first = credentials.headers(0)
        path.write_text(jwt(version=2))
        os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
        clock.seconds = NOW + 3239
        assert credentials.headers(1) is first
        clock.seconds = NOW + 3240  # its last tenth
        assert authorization(credentials.headers(1.5)) == f"Bearer {jwt()}"
        assert authorization(credentials.headers(2)) == f"Bearer {jwt(version=2)}"

    def test_one_that_has_expired_is_told_once_and_sent_as_clocks_may_differ(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        clock, path = WallClock(), tmp_path / "token"
        path.write_text(jwt())
        credentials = Credentials(CredentialSources(token_file=path), clock=clock)
        credentials.headers(0)
        clock.seconds = NOW + 3600
        for second in range(1, 5):
            assert authorization(credentials.headers(second)) == f"Bearer {jwt()}"
        assert [record.getMessage() for record in caplog.records] == [
            "the token has expired and no newer one is there; sending with it"
        ]
        assert SECRET not in str([vars(record) for record in caplog.records])

    @pytest.mark.parametrize(("audience", "warned"), [("other", 1), ("sink", 0), ("", 0)])
    def test_one_for_another_audience_is_told_once(
        self, tmp_path: Path, audience: str, warned: int, caplog: pytest.LogCaptureFixture
    ) -> None:
        clock, path = WallClock(), tmp_path / "token"
        credentials = Credentials(CredentialSources(token_file=path), audience=audience, clock=clock)
        for version in range(1, 4):
            path.write_text(jwt(version=version))
            credentials.headers(version)
        assert len(caplog.records) == warned
        assert SECRET not in str([vars(record) for record in caplog.records])


class TestNameAndPassword:
    def test_they_are_sent_as_rfc_7617_says(self) -> None:
        credentials = Credentials(CredentialSources(username="Aladdin", password="open sesame"))
        assert authorization(credentials.headers(0)) == "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="

    @pytest.mark.parametrize("end", ["", "\n", "\r\n"])
    def test_a_password_in_a_file_may_end_its_line(self, tmp_path: Path, end: str) -> None:
        (tmp_path / "password").write_bytes(f" pässword {end}".encode())
        sources = CredentialSources(username="me", password_file=tmp_path / "password")
        sent = authorization(Credentials(sources).headers(0))
        assert sent is not None
        assert base64.b64decode(sent.removeprefix("Basic ")).decode() == "me: pässword "

    @pytest.mark.parametrize("spoilt", [None, b"", b"two\nlines", b"\xff", b"\0"])
    def test_a_renewed_password_is_sent_and_a_spoilt_one_changes_nothing(
        self, tmp_path: Path, spoilt: bytes | None, caplog: pytest.LogCaptureFixture
    ) -> None:
        path = tmp_path / "password"
        path.write_text(SECRET)
        credentials = Credentials(CredentialSources(username="me", password_file=path))
        first = credentials.headers(0)
        path.unlink()
        if spoilt is not None:
            path.write_bytes(spoilt)
        assert credentials.headers(1) is first
        assert len(caplog.records) == 1
        path.write_text("another")
        assert credentials.headers(2) != first
        assert SECRET not in str([vars(record) for record in caplog.records])

    def test_they_beat_the_usual_token_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "token").write_text("token")
        monkeypatch.setattr("wellhead.credentials.OIDC_TOKEN", tmp_path / "token")
        sources = CredentialSources(token_file=tmp_path / "token", username="me", password="x")
        assert str(authorization(Credentials(sources).headers(0))).startswith("Basic ")


class TestHeadersOfOnesOwn:
    def test_they_go_along_and_an_authorization_among_them_is_the_one(self) -> None:
        sources = CredentialSources(headers=(("X-Api-Key", "abc"), ("Authorization", "Splunk def")))
        expected = ((b"x-api-key", b"abc"), (b"authorization", b"Splunk def"))
        assert Credentials(sources).headers(0) == expected

    def test_the_file_replaces_the_variable_name_by_name(self, tmp_path: Path) -> None:
        (tmp_path / "headers").write_text("x-a: file\nX-B: b\n")
        sources = CredentialSources(headers=(("X-A", "variable"), ("X-C", "c")), headers_file=tmp_path / "headers")
        expected = ((b"x-a", b"file"), (b"x-c", b"c"), (b"x-b", b"b"))
        assert Credentials(sources).headers(0) == expected

    def test_an_authorization_in_the_file_takes_over_and_hands_back(self, tmp_path: Path) -> None:
        path = tmp_path / "headers"
        path.write_text("")
        sources = CredentialSources(token="token", headers_file=path)
        credentials = Credentials(sources)
        sent = []
        for second, text in enumerate(("", "Authorization: Splunk abc", "X: y")):
            path.write_text(text)
            sent.append(authorization(credentials.headers(second)))
        assert sent == ["Bearer token", "Splunk abc", "Bearer token"]

    def test_what_changes_and_is_not_sent_changes_no_headers(self, tmp_path: Path) -> None:
        headers, token = tmp_path / "headers", tmp_path / "token"
        headers.write_text("Authorization: Splunk abc")
        token.write_text("old")
        credentials = Credentials(CredentialSources(headers_file=headers, token_file=token))
        first = credentials.headers(0)
        token.write_text("newer")
        headers.write_text("# a comment\nAuthorization: Splunk abc")
        assert credentials.headers(1) is first

    def test_a_file_that_went_wrong_changes_nothing_and_shows_nothing(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        path = tmp_path / "headers"
        path.write_text("X-Key: a")
        credentials = Credentials(CredentialSources(headers_file=path))
        first = credentials.headers(0)
        path.write_text(f"X-Key: b\nce-id: {SECRET}\n{SECRET}")
        assert credentials.headers(1) is first
        (record,) = caplog.records
        assert vars(record)["problem"] == (
            "line 2: gives ce-id, which is Wellhead's own to send; line 3: is not Name: value, with a name that HTTP allows"
        )


class TestSecrets:
    def test_all_that_was_sent_is_to_be_blanked_the_longest_first(self, tmp_path: Path) -> None:
        (tmp_path / "password").write_text(SECRET)
        headers = (("X-Api-Key", "abcdefgh"), ("X-Auth", 'Token key="0123456789"'), ("X-Short", "abc"))
        sources = CredentialSources(username="me", password_file=tmp_path / "password", headers=headers)
        credentials = Credentials(sources)
        credentials.headers(0)
        basic = base64.b64encode(f"me:{SECRET}".encode()).decode()
        secrets = credentials.secrets()
        assert {SECRET, basic, f"Basic {basic}", "abcdefgh", "0123456789"} <= set(secrets)
        assert list(map(len, secrets)) == sorted(map(len, secrets), reverse=True)
        assert not {"abc", "Basic", "Token", ""} & set(secrets)

    def test_an_old_token_is_one_as_long_as_its_tries_may_be_answered(self, tmp_path: Path) -> None:
        path = tmp_path / "token"
        credentials = from_token(path)
        for second, token in enumerate(("first", "second", "third")):
            path.write_text(token)
            credentials.headers(second)
        assert {"second", "third"} <= set(credentials.secrets())
        assert "first" not in credentials.secrets()

    @given(
        st.fixed_dictionaries(
            {"token": st.just(SECRET)} | {"headers": st.just((("X-Key", SECRET),))}, optional={"username": st.just("")}
        )
        | st.fixed_dictionaries({"username": st.just("me"), "password": st.text("abc", min_size=1).map(SECRET.__add__)})
    )
    def test_none_is_in_any_repr(self, given: dict[str, object]) -> None:
        sources = replace(NO_CREDENTIALS, **given)  # type: ignore[arg-type]  # fields by name
        credentials = Credentials(sources)
        credentials.headers(0)
        assert SECRET not in f"{sources}{sources!r}{credentials}{credentials!r}"


class TestWhatIsWrong:
    def test_every_contradiction_is_told_at_once_without_a_secret(self) -> None:
        everyone = ("SINK_USERNAME", "SINK_TOKEN", "OIDC_TOKEN_FILE", "Authorization in SINK_HEADERS")
        found = problems(
            username="a:b", password=SECRET, password_file=Path("p"), token=SECRET, token_file=Path("t"),
            headers=(("authorization", SECRET),),
        )  # fmt: skip
        assert found == [
            "SINK_USERNAME: holds a colon or control characters, or is longer than 1024 characters",
            "SINK_PASSWORD: is set beside SINK_PASSWORD_FILE; one of them",
            f"{' and '.join(everyone)}: each say what Authorization to send; one of them",
        ]

    @pytest.mark.parametrize(
        ("given", "problem"),
        [
            ({"username": "me"}, "SINK_USERNAME: is set without SINK_PASSWORD_FILE or SINK_PASSWORD"),
            ({"password": SECRET}, "SINK_PASSWORD or SINK_PASSWORD_FILE: is set without SINK_USERNAME"),
            ({"password_file": Path("p")}, "SINK_PASSWORD or SINK_PASSWORD_FILE: is set without SINK_USERNAME"),
        ],
    )
    def test_a_name_needs_a_password_and_a_password_a_name(self, given: dict[str, object], problem: str) -> None:
        assert problems(**given) == [problem]

    @pytest.mark.parametrize("name", ["a:b", "a\nb", "\x7f", "\udcff", "x" * 1025])
    def test_a_name_that_basic_credentials_cannot_hold_is_told(self, name: str) -> None:
        (problem,) = problems(username=name, password=SECRET)
        assert problem.startswith("SINK_USERNAME: holds")

    def test_every_file_that_is_wrong_is_told_and_a_missing_token_is_none(self, tmp_path: Path) -> None:
        (tmp_path / "headers").write_text(f"{SECRET}\nX-Fine: yes\nhost: {SECRET}")
        sources = CredentialSources(token_file=tmp_path / "none", headers_file=tmp_path / "headers")
        assert list(map(str, sources.file_problems())) == [
            f"SINK_HEADERS_FILE: {tmp_path / 'headers'}: line 1: is not Name: value, with a name that HTTP allows",
            f"SINK_HEADERS_FILE: {tmp_path / 'headers'}: line 3: gives host, which is Wellhead's own to send",
        ]
        named = CredentialSources(username="me", password_file=tmp_path / "password")
        assert list(map(str, named.file_problems())) == [f"SINK_PASSWORD_FILE: {tmp_path / 'password'} is not there"]

    def test_a_bearer_token_is_held_against_its_rule(self) -> None:
        assert bearer_token(" abc\n") == "abc"
        with pytest.raises(ValueError, match=r"^is no token"):
            bearer_token(f"{SECRET} b")
