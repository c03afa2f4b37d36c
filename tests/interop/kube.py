"""A real kube-apiserver over a real etcd, on loopback (see kube/README.md).

Nothing of a cluster beside: no controllers, so no garbage collection, no pods of Deployments, no end of a deleted
namespace. RBAC is on; tokens come from a file, or from TokenRequest.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import ssl
import subprocess
import threading
import time
import urllib.error
import urllib.request
from contextlib import ExitStack
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import trustme
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from tests.interop.go_module import GoModule, PeerBroken

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import TracebackType

KUBE_VERSION: Final = "1.35.4"  # as in kube/go.mod

_VERSION_PACKAGE: Final = "k8s.io/component-base/version"
_MAJOR, _MINOR, _ = KUBE_VERSION.split(".")
_LINKED: Final = (
    f"-s -w -X {_VERSION_PACKAGE}.gitVersion=v{KUBE_VERSION}"
    f" -X {_VERSION_PACKAGE}.gitMajor={_MAJOR} -X {_VERSION_PACKAGE}.gitMinor={_MINOR}"
)
KUBE: Final = GoModule(
    sources=Path(__file__).with_name("kube"),
    flags=("-ldflags", _LINKED),
    build_seconds=2400.0,  # three to nine minutes, when nothing is cached
)

ADMIN_TOKEN: Final = "token-of-the-administrator"
STRANGER_TOKEN: Final = "token-of-a-stranger"
NOT_ADMITTING: Final = (  # they wait for controllers that do not run here
    *("ServiceAccount", "TaintNodesByCondition", "Priority"),
    *("StorageObjectInUseProtection", "PersistentVolumeClaimResize"),
)
READY_SECONDS: Final = 120.0
STOP_SECONDS: Final = 30.0

# $0 is what is mounted, the arguments are the program. /run is our own, so that nothing of the machine's is touched.
_MOUNT_AND_EXEC: Final = """
mount -t tmpfs tmpfs /run
mkdir -p /run/secrets/kubernetes.io/serviceaccount
mount --bind "$0" /run/secrets/kubernetes.io/serviceaccount
exec "$@"
"""

Json = Any
"""What a test reads of an answer; it asserts the shape by reading it."""


class ApiProblem(Exception):
    """The server answered with another status than 2xx."""

    def __init__(self, status: int, body: str) -> None:
        self.status = status
        super().__init__(f"{status}: {body[:500]}")


class Kube:
    """The server, as long as the ``with`` block runs; meanwhile it may be stopped, killed and started again.

        with Kube(KUBE.build(), folder) as kube:
            kube.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "default"}})

    Entering raises PeerBroken. Leaving ends both programs, by process.
    """

    def __init__(self, programs: Path, folder: Path, *, watch_cache: bool = True) -> None:
        self._programs = programs
        self._folder = folder
        self._watch_cache = watch_cache
        self._etcd_port, self._etcd_peer_port, self.port = _free_ports(3)
        self.url = f"https://127.0.0.1:{self.port}"
        self.ca_file = folder / "ca.pem"
        self._api: _Daemon | None = None

    def __enter__(self) -> Self:
        self._folder.mkdir(exist_ok=True)
        self._write_keys()
        with ExitStack() as undo:
            etcd = _Daemon(self._etcd_command(), self._folder / "etcd")
            undo.callback(etcd.stop)
            etcd.wait_until_ready()
            undo.callback(self.stop)
            self.start()
            self._undo = undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._undo.close()

    def start(self) -> None:
        """Start the API server, on the port and with the state it had. Returns once it serves."""
        self._api = _Daemon(self._api_command(), self._folder / "kube-apiserver")
        self._api.wait_until_ready()
        self._wait_for_hooks()

    def stop(self) -> None:
        """Ask the API server to end, and wait until it has."""
        if self._api is not None:
            self._api.stop()
            self._api = None

    def kill(self) -> None:
        """End the API server as a crash would."""
        if self._api is not None:
            self._api.kill()
            self._api = None

    def restart(self) -> None:
        self.stop()
        self.start()

    def compact(self) -> int:
        """Forget every revision before this one: without a watch cache, older watches and lists are answered 410."""
        revision = int(self._etcd("kv/range", {"key": base64.b64encode(b"x").decode()})["header"]["revision"])
        self._etcd("kv/compaction", {"revision": str(revision), "physical": True})
        return revision

    def request(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        token: str = ADMIN_TOKEN,
        content_type: str = "application/json",
    ) -> Json:
        """The answer's JSON. Raises `ApiProblem`, or OSError where there is no server."""
        request = urllib.request.Request(self.url + path, method=method)
        request.add_header("Authorization", f"Bearer {token}")
        if body is not None:
            request.data = json.dumps(body).encode()
            request.add_header("Content-Type", content_type)
        try:
            with urllib.request.urlopen(request, timeout=30, context=self.tls()) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                raise ApiProblem(error.code, error.read().decode(errors="replace")) from None

    def apply(self, document: Mapping[str, Json]) -> Json:
        """Server-side apply of one object; its kind must be known to the server."""
        path = f"{self.path_of(document)}?fieldManager=tests&force=true"
        return self.request("PATCH", path, document, content_type="application/apply-patch+yaml")

    def create(self, document: Mapping[str, Json]) -> Json:
        return self.request("POST", self.path_of(document).rpartition("/")[0], document)

    def delete(self, document: Mapping[str, Json]) -> Json:
        return self.request("DELETE", self.path_of(document))

    def path_of(self, document: Mapping[str, Json]) -> str:
        """Where the object is, by the server's own discovery. Raises LookupError where it knows no such kind."""
        version = document["apiVersion"]
        root = f"/api/{version}" if "/" not in version else f"/apis/{version}"
        for resource in self.request("GET", root)["resources"]:
            if resource["kind"] == document["kind"] and "/" not in resource["name"]:
                metadata = document["metadata"]
                within = f"/namespaces/{metadata.get('namespace', 'default')}" if resource["namespaced"] else ""
                return f"{root}{within}/{resource['name']}/{metadata['name']}"
        raise LookupError(f"{version} has no {document['kind']}")

    def define(self, crd: Mapping[str, Json]) -> None:
        """Apply a CustomResourceDefinition, and wait until its kind is served."""
        self.apply(crd)
        path = f"/apis/{crd['apiVersion']}/customresourcedefinitions"
        watch = f"{path}?watch=true&timeoutSeconds=30&fieldSelector=metadata.name%3D{crd['metadata']['name']}"
        for line in self.lines(watch):
            conditions = line["object"].get("status", {}).get("conditions", [])
            if any(one["type"] == "Established" and one["status"] == "True" for one in conditions):
                break
        spec = crd["spec"]
        within = f"/apis/{spec['group']}/{spec['versions'][0]['name']}/{spec['names']['plural']}?limit=1"
        self._until(lambda: self.request("GET", within), f"{crd['metadata']['name']} is not served")

    def lines(self, path: str) -> Iterator[Json]:
        """The answer's lines, as a watch has them."""
        request = urllib.request.Request(self.url + path, headers={"Authorization": f"Bearer {ADMIN_TOKEN}"})
        with urllib.request.urlopen(request, timeout=60, context=self.tls()) as answer:
            for line in answer:
                yield json.loads(line)

    def namespace(self, name: str) -> str:
        """A new namespace of this name."""
        self.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        return name

    def service_account(self, name: str, namespace: str) -> None:
        self.create({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": namespace}})

    def token_of(self, name: str, namespace: str, *, audience: str = "", seconds: int = 3600) -> str:
        """A token of this ServiceAccount, by TokenRequest."""
        spec: dict[str, Json] = {"expirationSeconds": seconds}
        if audience:
            spec["audiences"] = [audience]
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token"
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        token: str = self.request("POST", path, body)["status"]["token"]
        return token

    def pod_folder(self, folder: Path, name: str, namespace: str) -> Path:
        """What a kubelet mounts at /var/run/secrets/kubernetes.io/serviceaccount, written to ``folder``."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "token").write_text(self.token_of(name, namespace))
        (folder / "ca.crt").write_bytes(self.ca_file.read_bytes())
        (folder / "namespace").write_text(namespace)
        return folder

    def kubeconfig(self, path: Path, *, token: str = ADMIN_TOKEN, namespace: str = "default") -> Path:
        """A kubeconfig for ``token``, written to ``path``."""
        cluster = {"server": self.url, "certificate-authority": str(self.ca_file)}
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": "test", "user": {"token": token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test", "namespace": namespace}}],
            "current-context": "test",
        }
        path.write_text(yaml.safe_dump(document))
        return path

    def tls(self) -> ssl.SSLContext:
        """Trusts this server, and no other."""
        return ssl.create_default_context(cafile=str(self.ca_file))

    def _write_keys(self) -> None:
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(self.ca_file))
        authority.issue_cert("127.0.0.1", "localhost").private_key_and_cert_chain_pem.write_to_path(
            str(self._folder / "server.pem")
        )
        key = ec.generate_private_key(ec.SECP256R1())
        (self._folder / "service-accounts.pem").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
            )
        )
        (self._folder / "tokens.csv").write_text(
            f'{ADMIN_TOKEN},administrator,administrator,"system:masters"\n{STRANGER_TOKEN},stranger,stranger\n'
        )

    def _etcd_command(self) -> list[str]:
        client, peer = (f"http://127.0.0.1:{port}" for port in (self._etcd_port, self._etcd_peer_port))
        return [
            str(self._programs / "etcd"),
            f"--data-dir={self._folder / 'etcd-data'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--unsafe-no-fsync",
            "--log-level=warn",
        ]

    def _api_command(self) -> list[str]:
        folder = self._folder
        return [
            str(self._programs / "kube-apiserver"),
            f"--etcd-servers=http://127.0.0.1:{self._etcd_port}",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            f"--secure-port={self.port}",
            f"--cert-dir={folder / 'certificates'}",
            f"--tls-cert-file={folder / 'server.pem'}",
            f"--tls-private-key-file={folder / 'server.pem'}",
            "--endpoint-reconciler-type=none",
            "--service-cluster-ip-range=127.0.0.0/24",  # webhooks by Service are called on loopback
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={folder / 'service-accounts.pem'}",
            f"--service-account-signing-key-file={folder / 'service-accounts.pem'}",
            f"--token-auth-file={folder / 'tokens.csv'}",
            "--authorization-mode=RBAC",
            "--allow-privileged=true",
            f"--disable-admission-plugins={','.join(NOT_ADMITTING)}",
            f"--watch-cache={'true' if self._watch_cache else 'false'}",
        ]

    def _wait_for_hooks(self) -> None:
        """The server serves before its start hooks (RBAC's own roles, namespaces) are done, and says that nowhere but
        at /readyz.
        """
        self._until(self._ready, "kube-apiserver is not ready")

    def _until(self, works: Callable[[], object], trouble: str) -> None:
        """Try what the server gives no signal for until it works."""
        until = time.monotonic() + READY_SECONDS
        pause = threading.Event()
        while time.monotonic() < until:
            try:
                works()
            except (OSError, HTTPException, ApiProblem, LookupError):
                pause.wait(0.05)
            else:
                return
        raise PeerBroken(f"{trouble} after {READY_SECONDS:.0f} s; see {self._folder}")

    def _ready(self) -> None:
        request = urllib.request.Request(f"{self.url}/readyz", headers={"Authorization": f"Bearer {ADMIN_TOKEN}"})
        with urllib.request.urlopen(request, timeout=5, context=self.tls()):
            pass

    def _etcd(self, method: str, body: Mapping[str, Json]) -> Json:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self._etcd_port}/v3/{method}", method="POST", data=json.dumps(body).encode()
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)


class _Daemon:
    """A program that says it is ready as systemd wants to be told (sd_notify), and writes its log to a file."""

    def __init__(self, command: list[str], log: Path) -> None:
        self._name = Path(command[0]).name
        self._log = log.with_suffix(".log")
        self._told = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        # An abstract address: a temporary folder's path may be longer than the 107 bytes of another.
        self._told.bind("\0wellhead-" + os.urandom(8).hex())
        address = "@" + self._told.getsockname()[1:].decode()
        with self._log.open("ab") as file:
            self._process = subprocess.Popen(
                command,
                env={**os.environ, "NOTIFY_SOCKET": address},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
            )

    def wait_until_ready(self) -> None:
        """Raises PeerBroken with the end of the log."""
        self._told.settimeout(0.2)  # between looks whether it still runs
        until = time.monotonic() + READY_SECONDS
        while time.monotonic() < until and self._process.poll() is None:
            try:
                if b"READY=1" in self._told.recv(4096):
                    return
            except TimeoutError:
                continue
        self.kill()
        last = self._log.read_text(errors="replace").splitlines()[-15:]
        raise PeerBroken("\n".join([f"{self._name} did not start:", *last]))

    def stop(self) -> None:
        if self._process.poll() is None:
            self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
        self._told.close()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._told.close()


def as_pod(mounted: Path) -> tuple[str, ...]:
    """What to put before a program, so that it finds ``mounted`` where a pod finds its token and CA. Needs root."""
    return ("unshare", "--mount", "sh", "-ec", _MOUNT_AND_EXEC, str(mounted))


def _free_ports(count: int) -> list[int]:
    with ExitStack() as held:
        sockets = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [int(one.getsockname()[1]) for one in sockets]
