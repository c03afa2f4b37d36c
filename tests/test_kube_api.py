"""Talking to an API server: requests, raw lines however they are cut, errors, and credentials that change."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme
import yaml
from hypothesis import given
from hypothesis import strategies as st
from tests.fake_cluster import FakeCluster, fake_api_server

from wellhead.errors import ConfigError
from wellhead.http_server import Answer, HttpServer, Request, Response, Takeover
from wellhead.kubernetes.api import Api, ApiError, Lines
from wellhead.kubernetes.cluster import PlainCluster, PodCluster, find_cluster, in_pod
from wellhead.kubernetes.errors import BROKEN, CONNECT, CREDENTIALS, GARBLED, SILENT, TLS
from wellhead.kubernetes.kubeconfig import KubeconfigCluster

PODS = "/api/v1/pods"


@asynccontextmanager
async def answering(answer: Answer) -> AsyncIterator[tuple[Api, list[Request]]]:
    asked: list[Request] = []

    def handle(request: Request) -> Answer:
        asked.append(request)
        return answer

    server = HttpServer(handle)
    host, port = await server.start("127.0.0.1", 0)
    api = Api(PlainCluster(f"http://{host}:{port}/"))
    try:
        yield api, asked
    finally:
        await api.aclose()
        await server.stop(0)


def streaming(*chunks: bytes, ends: bool = True) -> Takeover:
    async def run(connection: Any) -> None:
        connection.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for chunk in chunks:
            connection.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
            await connection.drain()
            await asyncio.sleep(0)
        if ends:
            connection.write(b"0\r\n\r\n")
            connection.close()
        else:
            connection.abort()

    return Takeover(run)


# --- requests ---


async def test_json_goes_out_and_comes_back() -> None:
    async with answering(Response(201, b'{"status":{"token":"t"}}')) as (api, asked):
        assert await api.post("/api/v1/namespaces/a/serviceaccounts/b/token", {"spec": {}}) == {
            "status": {"token": "t"}
        }
    (request,) = asked
    assert (request.method, request.path, request.body) == (
        "POST",
        "/api/v1/namespaces/a/serviceaccounts/b/token",
        b'{"spec": {}}',
    )
    headers = {name.lower(): value for name, value in request.headers}
    assert headers[b"content-type"] == b"application/json"
    assert b"authorization" not in headers


async def test_a_path_goes_out_as_it_is() -> None:
    async with answering(Response(200, b"{}")) as (api, asked):
        await api.get("/api/v1/pods?labelSelector=a%20in%20%28b%2Cc%29&continue=a%2Bb%3D")
    assert asked[0].query == "labelSelector=a%20in%20%28b%2Cc%29&continue=a%2Bb%3D"


@pytest.mark.parametrize(
    ("answer", "status", "reason", "retry_after"),
    [
        (Response(403, b'{"kind":"Status","reason":"Forbidden","message":"no","code":403}'), 403, "Forbidden", None),
        (Response(429, b'{"kind":"Status","reason":"TooManyRequests","code":429}', ((b"Retry-After", b"3"),)), 429, "TooManyRequests", 3.0),
        (Response(502, b"<html>bad gateway"), 502, "Bad Gateway", None),
        (Response(503, b'{"kind":"Status","reason":"X","details":{"retryAfterSeconds":2}}'), 503, "X", 2.0),
        (Response(302, b"", ((b"Location", b"http://127.0.0.1:1/"),)), 302, "Found", None),
        (Response(200, b"[]"), 0, GARBLED, None),
        (Response(200, b"{"), 0, GARBLED, None),
        (Response(200, b"\xff"), 0, GARBLED, None),
        (Response(200, b"{}{}"), 0, GARBLED, None),
    ],
)  # fmt: skip
async def test_what_is_no_answer_is_an_error_that_says_what_it_is(
    answer: Response, status: int, reason: str, retry_after: float | None
) -> None:
    async with answering(answer) as (api, _):
        with pytest.raises(ApiError) as caught:
            await api.get("/api/v1")
        assert (caught.value.status, caught.value.reason, caught.value.retry_after) == (status, reason, retry_after)


async def test_an_api_server_that_is_not_there_is_an_error_without_a_status() -> None:
    api = Api(PlainCluster("http://127.0.0.1:1"))
    with pytest.raises(ApiError) as caught:
        await api.get("/api/v1")
    await api.aclose()
    assert (caught.value.status, caught.value.reason) == (0, CONNECT)


@pytest.mark.parametrize("host", ["a..b", "a" * 64, "ü" * 63])
async def test_a_host_that_cannot_be_looked_up_is_an_error_without_a_status(host: str) -> None:
    api = Api(PlainCluster(f"http://{host}:1"))
    with pytest.raises(ApiError) as caught:
        await api.get("/api/v1")
    with pytest.raises(ApiError):
        await api.lines("/api/v1").open()
    await api.aclose()
    assert (caught.value.status, caught.value.reason) == (0, CONNECT)
    assert "host is no name" in caught.value.message


async def test_what_is_no_http_is_an_error() -> None:
    async def garbage(connection: Any) -> None:
        connection.write(b"\x15\x03\x01nonsense\r\n\r\n")

    async with answering(Takeover(garbage)) as (api, _):
        with pytest.raises(ApiError) as caught:
            await api.get("/api/v1")
    assert caught.value.reason in (GARBLED, BROKEN)


# --- lines ---


async def test_lines_come_as_they_are_however_they_are_cut() -> None:
    chunks = (
        b'{"a":1}\n{"b"',
        b":2}\r\n",
        b"\n",
        '{"c":"é'.encode()[:-1],
        "é".encode()[-1:] + b'"}\n{"d":',
        b'4}\n{"cut',
    )
    async with answering(streaming(*chunks)) as (api, _):
        assert [line async for line in api.lines(PODS)] == [b'{"a":1}', b'{"b":2}', '{"c":"é"}'.encode(), b'{"d":4}']


@given(st.lists(st.text(st.characters(exclude_characters="\r\n", codec="utf-8"), min_size=1), max_size=8), st.data())
def test_lines_are_independent_of_where_the_octets_are_cut(texts: Sequence[str], data: st.DataObject) -> None:
    octets = "".join(f"{text}\n" for text in texts).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(octets)), max_size=10)))
    lines = Lines(Api(PlainCluster("http://unused")), "/", "", 1.0)
    found = [
        line
        for begin, end in zip([0, *cuts], [*cuts, len(octets)], strict=True)
        for line in lines._split(octets[begin:end])
    ]
    assert found == [text.encode() for text in texts]


async def test_an_object_of_megabytes_is_a_line_like_any_other() -> None:
    large = b'"' + b"x" * (3 << 20) + b'"'
    async with answering(streaming(large + b"\n", b'"next"\n')) as (api, _):
        assert [len(line) async for line in api.lines(PODS)] == [len(large), 6]


async def test_a_line_that_never_ends_is_an_error_before_it_fills_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wellhead.kubernetes.api._LONGEST_LINE", 1000)
    async with answering(streaming(*[b"x" * 100] * 20)) as (api, _):
        with pytest.raises(ApiError, match="longer than 1000 bytes"):
            [line async for line in api.lines(PODS)]


async def test_a_stream_that_breaks_gives_its_whole_lines_and_then_an_error() -> None:
    async with answering(streaming(b'"a"\n"b', ends=False)) as (api, _):
        lines = api.lines(PODS)
        found: list[bytes] = []

        async def read() -> None:
            while batch := await lines.batch():
                found.extend(batch)

        with pytest.raises(ApiError) as caught:
            await read()
        assert caught.value.reason == BROKEN
    assert found in ([b'"a"'], [])  # a reset may overtake what was sent before it


async def test_a_stream_that_says_nothing_for_too_long_is_taken_for_half_open() -> None:
    async def hush(connection: Any) -> None:
        connection.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        await connection.wait_closed()

    async with answering(Takeover(hush)) as (api, _):
        with pytest.raises(ApiError) as caught:
            await api.lines(PODS, silence=0.05).batch()
    assert caught.value.reason == SILENT


async def test_a_watch_that_is_refused_says_so_when_it_is_opened() -> None:
    cluster = FakeCluster(standing={"watch": ApiError(403, "Forbidden", "no")})
    async with fake_api_server(cluster) as server:
        api = Api(PlainCluster(server.url))
        with pytest.raises(ApiError, match="403 Forbidden"):
            await api.lines(f"{PODS}?watch=true&resourceVersion=1").open()
        await api.aclose()


# --- credentials ---


async def test_in_a_pod_a_token_that_rotates_is_read_again(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("first\n")
    async with fake_api_server() as server:
        server.tokens = {"first"}
        api = Api(PodCluster(server.url, tmp_path))
        await api.get("/api/v1")
        server.tokens = {"second"}
        with pytest.raises(ApiError, match="401"):
            await api.get("/api/v1")
        (tmp_path / "token").write_text("second\n")
        await api.get("/api/v1")
        await api.aclose()


@pytest.mark.parametrize(
    ("host", "url"), [("10.96.0.1", "https://10.96.0.1:443"), ("fd00::1", "https://[fd00::1]:443")]
)
async def test_a_pod_finds_its_api_server_in_its_environment(tmp_path: Path, host: str, url: str) -> None:
    environment = {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": "443"}
    assert in_pod(environment, tmp_path) is None
    (tmp_path / "token").write_text("t")
    cluster = in_pod(environment, tmp_path)
    assert cluster is not None
    approach = await cluster.approach()
    assert (approach.url, approach.authorization) == (url, "Bearer t")
    assert "Bearer" not in repr(approach)


async def test_the_way_to_a_cluster_is_chosen_in_this_order(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("t")
    pod = {"KUBERNETES_SERVICE_HOST": "h", "KUBERNETES_SERVICE_PORT": "1"}
    config = tmp_path / ".kube/config"
    config.parent.mkdir()
    config.write_text("{}")
    home = {"HOME": str(tmp_path)}
    assert isinstance(find_cluster(pod, server="http://s", kubeconfig="k", folder=tmp_path), PlainCluster)
    assert isinstance(find_cluster(pod, kubeconfig="k", folder=tmp_path), KubeconfigCluster)
    assert isinstance(find_cluster(pod | home, folder=tmp_path), PodCluster)
    assert isinstance(find_cluster(home, folder=tmp_path), KubeconfigCluster)
    assert isinstance(find_cluster({"KUBECONFIG": "k"}, folder=tmp_path), KubeconfigCluster)
    with pytest.raises(ConfigError, match="no API server"):
        find_cluster({"HOME": "/nowhere"}, folder=tmp_path)


def kubeconfig(path: Path, server: str, user: dict[str, Any], **cluster: Any) -> str:
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": server, **cluster}}],
        "users": [{"name": "u", "user": user}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    path.write_text(yaml.safe_dump(content))
    return str(path)


async def test_a_kubeconfig_with_a_token_is_followed_when_it_changes(tmp_path: Path) -> None:
    async with fake_api_server() as server:
        server.tokens = {"first"}
        paths = kubeconfig(tmp_path / "config", f"{server.url}/", {"token": "first"})
        api = Api(KubeconfigCluster(paths))
        assert await api.url() == server.url
        await api.get("/api/v1")
        server.tokens = {"second!"}
        kubeconfig(tmp_path / "config", server.url, {"token": "second!"})
        await api.get("/api/v1")
        await api.aclose()


async def test_an_exec_plugin_is_asked_again_after_a_401(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("first")
    plugin = tmp_path / "plugin"
    says = {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {"token": "T"}}
    plugin.write_text(f"#!/bin/sh\necho '{json.dumps(says)}' | sed s/T\\\"/$(cat {token})\\\"/\n")
    plugin.chmod(0o755)
    user = {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": str(plugin), "args": []}}
    async with fake_api_server() as server:
        server.tokens = {"first"}
        api = Api(KubeconfigCluster(kubeconfig(tmp_path / "config", server.url, user)))
        await api.get("/api/v1")
        token.write_text("second")
        server.tokens = {"second"}
        with pytest.raises(ApiError, match="401"):
            await api.get("/api/v1")
        await api.get("/api/v1")
        await api.aclose()


async def test_an_exec_plugin_runs_once_for_all_who_ask_at_once(tmp_path: Path) -> None:
    runs, plugin = tmp_path / "runs", tmp_path / "plugin"
    says = {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {"token": "T"}}
    plugin.write_text(f"#!/bin/sh\necho >> {runs}\necho '{json.dumps(says)}'\n")
    plugin.chmod(0o755)
    user = {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": str(plugin), "args": []}}
    cluster = KubeconfigCluster(kubeconfig(tmp_path / "config", "http://127.0.0.1:1", user))
    for anew in (False, True):
        found = await asyncio.gather(*(cluster.approach(anew=anew) for _ in range(20)))
        assert {one.authorization for one in found} == {"Bearer T"}
    assert len(runs.read_text()) == 2


async def test_an_exec_plugin_that_hangs_is_an_error_that_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(_: KubeconfigCluster) -> None:  # kubernetes-asyncio lets go of the process, and nobody can end it
        await asyncio.sleep(60)

    monkeypatch.setattr("wellhead.kubernetes.kubeconfig._LOAD_SECONDS", 0.1)
    monkeypatch.setattr(KubeconfigCluster, "_load", hang)
    cluster = KubeconfigCluster(kubeconfig(tmp_path / "config", "http://127.0.0.1:1", {}))
    with pytest.raises(ApiError, match="no credentials within") as caught:
        await cluster.approach()
    assert caught.value.reason == CREDENTIALS


@pytest.mark.parametrize("content", ["", "{}", "- a", "current-context: none", "{"])
async def test_a_kubeconfig_that_is_none_is_an_error_that_names_it(tmp_path: Path, content: str) -> None:
    path = tmp_path / "config"
    path.write_text(content)
    api = Api(KubeconfigCluster(str(path)))
    with pytest.raises(ApiError) as caught:
        await api.get("/api/v1")
    assert caught.value.reason == CREDENTIALS
    assert str(path) in str(caught.value)
    await api.aclose()


@pytest.mark.parametrize(
    ("server", "user", "cluster", "problem"),
    [
        ("http://[::1", {}, {}, "server 'http://[::1'"),
        ("https://127.0.0.1:99999", {}, {}, "server 'https://127.0.0.1:99999'"),
        ("127.0.0.1:6443", {}, {}, "server '127.0.0.1:6443'"),
        ("", {}, {}, "server ''"),
        ("https://a..b:6443", {}, {}, "server 'https://a..b:6443' has a host that is no name"),
        (f"https://{'a' * 64}.b:6443", {}, {}, "aaa.b:6443' has a host that is no name"),
        (f"https://{'ü' * 63}:6443", {}, {}, "üüü:6443' has a host that is no name"),
        ("http://127.0.0.1:1", {}, {"proxy-url": "http://u:hunter2@a..b:1"}, "proxy-url 'http://…@a..b:1' has a host"),
        ("http://127.0.0.1:1", {}, {"proxy-url": "socks5://127.0.0.1:1080"}, "proxy-url 'socks5://127.0.0.1:1080'"),
        ("http://127.0.0.1:1", {"token": "hunter2\x00"}, {}, "token"),
        ("http://127.0.0.1:1", {"token": "hünter2"}, {}, "token"),
    ],
)
async def test_what_a_kubeconfig_says_that_no_request_can_be_made_of_is_told(
    tmp_path: Path, server: str, user: dict[str, Any], cluster: dict[str, Any], problem: str
) -> None:
    api = Api(KubeconfigCluster(kubeconfig(tmp_path / "config", server, user, **cluster)))
    with pytest.raises(ApiError) as caught:
        await api.get("/api/v1")
    await api.aclose()
    assert caught.value.reason == CREDENTIALS
    assert problem in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", f"{'a' * 63}.b", "a.b.", "a_b", "bücher.example"])
async def test_a_host_of_a_kubeconfig_that_can_be_looked_up_is_left_as_it_is(tmp_path: Path, host: str) -> None:
    config = kubeconfig(tmp_path / "config", f"https://{host}:6443", {"token": "t"})
    assert (await KubeconfigCluster(config).approach()).url == f"https://{host}:6443"


async def test_a_name_and_a_password_are_shown_as_ever(tmp_path: Path) -> None:
    user = {"username": "u", "password": "p"}
    approach = await KubeconfigCluster(kubeconfig(tmp_path / "config", "http://127.0.0.1:1", user)).approach()
    assert approach.authorization == "Basic dTpw"


async def test_a_token_with_the_end_of_its_line_is_a_token(tmp_path: Path) -> None:
    async with fake_api_server() as server:
        server.tokens = {"first"}
        api = Api(KubeconfigCluster(kubeconfig(tmp_path / "config", server.url, {"token": "first\n"})))
        await api.get("/api/v1")
        await api.aclose()


# --- TLS ---


@asynccontextmanager
async def tls_server(ca: trustme.CA, *, client: bool = False) -> AsyncIterator[str]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("127.0.0.1").configure_cert(context)
    if client:
        context.verify_mode = ssl.CERT_REQUIRED
        ca.configure_trust(context)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        await server.wait_closed()


async def test_a_ca_that_rotates_in_a_pod_is_trusted_when_it_is_there(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("t")
    old, new = trustme.CA(), trustme.CA()
    old.cert_pem.write_to_path(tmp_path / "ca.crt")
    async with tls_server(new) as url:
        api = Api(PodCluster(url, tmp_path))
        with pytest.raises(ApiError) as caught:
            await api.get("/api/v1")
        assert caught.value.reason == TLS
        (tmp_path / "ca.crt").unlink()
        new.cert_pem.write_to_path(tmp_path / "ca.crt")
        assert await api.get("/api/v1") == {}
        await api.aclose()


async def test_a_ca_that_holds_the_same_keeps_its_connections(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("t")
    ca = trustme.CA()
    ca.cert_pem.write_to_path(tmp_path / "ca.crt")
    cluster = PodCluster("https://h", tmp_path)
    first = (await cluster.approach()).tls
    (tmp_path / "ca.crt").write_bytes(ca.cert_pem.bytes() + b"\n")
    assert (await cluster.approach()).tls is first
    (tmp_path / "ca.crt").write_text("half a file")
    assert (await cluster.approach()).tls is first


async def test_a_kubeconfig_shows_its_client_certificate(tmp_path: Path) -> None:
    ca = trustme.CA()
    cert = ca.issue_cert("someone.example")
    data = {
        "client-certificate-data": base64.b64encode(b"".join(pem.bytes() for pem in cert.cert_chain_pems)).decode(),
        "client-key-data": base64.b64encode(cert.private_key_pem.bytes()).decode(),
    }
    trusted = {"certificate-authority-data": base64.b64encode(ca.cert_pem.bytes()).decode()}
    async with tls_server(ca, client=True) as url:
        api = Api(KubeconfigCluster(kubeconfig(tmp_path / "config", url, data, **trusted)))
        assert await api.get("/api/v1") == {}
        await api.aclose()
        careless = Api(
            KubeconfigCluster(kubeconfig(tmp_path / "other", url, data, **{"insecure-skip-tls-verify": True}))
        )
        assert await careless.get("/api/v1") == {}
        await careless.aclose()
