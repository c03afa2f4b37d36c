"""A KafkaSource document as configuration, with every problem by path. Pure.

Each field becomes the variable that Knative's controller makes of it for its Go adapter, so that what is right in the
one is right in the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

from wellhead.env import Collector
from wellhead.errors import ConfigError, Problem
from wellhead.manifest import STAND_IN, Collected, SecretKey, find_secret, secret

from .config import KafkaConfig
from .net import net_path, net_references, net_variables

if TYPE_CHECKING:
    from wellhead.manifest import Document

SPEC_FIELDS: Final = ("bootstrapServers", "topics", "consumerGroup", "initialOffset", "consumers", "ordering", "net")
KEY_TYPE_LABEL: Final = "kafkasources.sources.knative.dev/key-type"
ORDERING_ANNOTATION: Final = "wellhead/ordering"
_ORDERINGS: Final = {"ordered": "partition", "unordered": "unordered"}
_LISTS: Final = {"bootstrapServers": "KAFKA_BOOTSTRAP_SERVERS", "topics": "KAFKA_TOPICS"}
_TEXTS: Final = {"consumerGroup": "KAFKA_CONSUMER_GROUP", "initialOffset": "KAFKA_INITIAL_OFFSET"}
_PEM: Final = "-----BEGIN CERTIFICATE-----\n-----BEGIN PRIVATE KEY-----"  # one key may hold both
_STAND_INS: Final = {
    "KAFKA_NET_SASL_TYPE": "PLAIN",
    "KAFKA_NET_TLS_CERT": _PEM,
    "KAFKA_NET_TLS_KEY": _PEM,
    "KAFKA_NET_TLS_CA_CERT": _PEM,
}
_PATHS: Final = {
    **{variable: f"spec.{name}" for name, variable in {**_LISTS, **_TEXTS}.items()},
    "KAFKA_ORDERING": "spec.ordering",
    "KEY_TYPE": f"metadata.labels[{KEY_TYPE_LABEL}]",
}


def from_manifest(document: Document, documents: Sequence[Document] = ()) -> KafkaConfig:
    """The configuration that a KafkaSource says. Raises `ConfigError` by path.

    ``net`` refers to Secrets among ``documents``. Without ``consumerGroup`` the group is named after the source, where
    Knative's webhook makes a random name.
    """
    problems: list[Problem] = []
    variables = {"NAME": document.name, "NAMESPACE": document.namespace}
    variables["KAFKA_CONSUMER_GROUP"] = f"knative-kafka-source-{document.namespace}-{document.name}"
    variables |= _said(document, problems)
    if document.spec.get("net") is not None:
        with Collected(problems):
            variables |= net_variables(document.spec["net"], partial(secret, documents, document.namespace))
    collector = Collector({name: value for name, value in variables.items() if value})
    config = collector.read(KafkaConfig)
    reported = {problem.where for problem in problems}
    for problem in collector.problems:
        path = _path(problem.where)
        if path not in reported:
            reported.add(path)
            problems.append(Problem(path, problem.what))
    if problems or config is None:
        raise ConfigError(problems)
    return config


def missing_secrets(document: Document, documents: Sequence[Document] = ()) -> list[SecretKey]:
    """What ``net`` refers to in Secrets that are not among ``documents``."""
    return [
        SecretKey(
            path=reference.path,
            namespace=document.namespace,
            name=reference.name,
            key=reference.key,
            optional=reference.optional,
            stand_in=_STAND_INS.get(reference.variable, STAND_IN),
        )
        for reference in net_references(document.spec.get("net"))
        if find_secret(documents, document.namespace, reference.name) is None
    ]


def _said(document: Document, problems: list[Problem]) -> dict[str, str]:
    spec = document.spec
    variables: dict[str, str] = {}
    for name, variable in _LISTS.items():
        value = spec.get(name)
        if not isinstance(value, Sequence) or isinstance(value, str) or not value:
            problems.append(Problem(f"spec.{name}", "missing field" if not value else f"{value!r} is not a list"))
        else:
            variables[variable] = ",".join(map(str, value))
    for name, variable in _TEXTS.items():
        if spec.get(name) is not None:
            variables[variable] = str(spec[name])
    variables["KAFKA_ORDERING"] = _ordering(document, problems)
    variables["KEY_TYPE"] = _metadata(document, "labels").get(KEY_TYPE_LABEL, "")
    consumers = spec.get("consumers", 1)
    if not isinstance(consumers, int) or isinstance(consumers, bool) or consumers < 0:
        problems.append(Problem("spec.consumers", f"{consumers!r} is not a whole number from 0 up"))
    return variables


def _ordering(document: Document, problems: list[Problem]) -> str:
    annotated = _metadata(document, "annotations").get(ORDERING_ANNOTATION, "")
    if annotated not in ("", "key"):
        where = f"metadata.annotations[{ORDERING_ANNOTATION}]"
        problems.append(Problem(where, f"{annotated!r} is not key; spec.ordering says the rest"))
    said = document.spec.get("ordering", "ordered")
    if said not in _ORDERINGS:
        problems.append(Problem("spec.ordering", f"{said!r} is not ordered or unordered"))
    return annotated if annotated == "key" else _ORDERINGS.get(str(said), "")


def _metadata(document: Document, part: str) -> Mapping[str, str]:
    metadata = document.body.get("metadata")
    values = metadata.get(part) if isinstance(metadata, Mapping) else None
    return {str(name): str(value) for name, value in values.items()} if isinstance(values, Mapping) else {}


def _path(where: str) -> str:
    for variable in where.replace(",", " ").split():
        if variable in _PATHS:
            return _PATHS[variable]
    return net_path(where)
