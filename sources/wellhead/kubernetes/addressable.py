"""The address of an object that takes events, as it is told by the object (contract/core.md 3.3). Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from wellhead.binding import Addressable
from wellhead.errors import ConfigError, Problem

if TYPE_CHECKING:
    from wellhead.binding import Ref

CLUSTER_DOMAIN: Final = "cluster.local"
_API_VERSIONS: Final = {
    "Service": "v1",
    "Broker": "eventing.knative.dev/v1",
    "Channel": "messaging.knative.dev/v1",
    "InMemoryChannel": "messaging.knative.dev/v1",
    "KafkaChannel": "messaging.knative.dev/v1beta1",
    "Parallel": "flows.knative.dev/v1",
    "Sequence": "flows.knative.dev/v1",
}
"""What is meant by a kind without one."""


def api_version_of(ref: Ref) -> str:
    """The ``apiVersion`` of what is meant. Raises `ConfigError` where the kind alone does not say."""
    version = ref.apiVersion or _API_VERSIONS.get(ref.kind, "")
    if not version:
        raise problem(ref, f"needs an apiVersion; {ref.kind} is none of {', '.join(_API_VERSIONS)}")
    return version


def is_core_service(ref: Ref) -> bool:
    """Whether it is a plain Service of Kubernetes, which has a name in DNS and no ``status.address``."""
    return (api_version_of(ref), ref.kind) == ("v1", "Service")


def service_address(ref: Ref, namespace: str, domain: str, *, secure: bool) -> Addressable:
    """Where a Service of Kubernetes is: at its name, over https exactly where CA certificates are given for it."""
    return Addressable(url=f"{'https' if secure else 'http'}://{ref.name}.{namespace}.svc.{domain}")


def address_of(ref: Ref, body: Mapping[str, object]) -> Addressable:
    """The address in the object's status. Raises `ConfigError`, which says what is not there yet."""
    status = body.get("status")
    found = _chosen(ref, status if isinstance(status, Mapping) else {})
    url = found.get("url")
    if not isinstance(url, str) or not url:
        raise problem(ref, f"has no URL in its address{_why(status)}")
    if not _host(url):
        raise problem(ref, "has an address without a host name")
    return Addressable(url=url, ca_certs=_text(found.get("CACerts")), audience=_text(found.get("audience")))


def domain_of(resolv_conf: str) -> str:
    """The cluster's domain by a pod's /etc/resolv.conf: its ``search`` holds ``svc.cluster.local``."""
    for line in resolv_conf.splitlines():
        words = line.split()
        if words[:1] == ["search"]:
            for word in words[1:]:
                if word.startswith("svc."):
                    return word.removeprefix("svc.").rstrip(".")
    return CLUSTER_DOMAIN


def problem(ref: Ref, what: str) -> ConfigError:
    """The one problem with what a ``ref`` names."""
    return ConfigError([Problem(f"sink.ref {ref}", what)])


def _chosen(ref: Ref, status: Mapping[str, object]) -> Mapping[str, object]:
    listed = status.get("addresses")
    several = [one for one in listed if isinstance(one, Mapping)] if isinstance(listed, list) else []
    if ref.address:
        for one in several:
            if one.get("name") == ref.address:
                return one
        raise problem(ref, f"has no address named {ref.address!a}{_why(status)}")
    single = status.get("address")
    if several:
        return several[0]
    if not isinstance(single, Mapping):
        raise problem(ref, f"has no address{_why(status)}")
    return single


def _why(status: object) -> str:
    """What its condition Ready says, so that one need not look it up."""
    conditions = status.get("conditions") if isinstance(status, Mapping) else None
    for one in conditions if isinstance(conditions, list) else ():
        if isinstance(one, Mapping) and one.get("type") == "Ready" and one.get("status") != "True":
            said = ": ".join(text for text in (_text(one.get("reason")), _text(one.get("message"))) if text)
            return f"; it is not ready{f' ({said[:200]})' if said else ''}"
    return ""


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
