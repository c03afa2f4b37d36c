"""A GitLabSource document as a configuration (contract/sources.md B1). Pure: what the environment adds is handed in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from wellhead.env import Collector
from wellhead.errors import ConfigError, Problem
from wellhead.manifest import SecretKey, find_secret, secret, unknown_fields

from .config import GitlabConfig

if TYPE_CHECKING:
    from wellhead.manifest import Document

SPEC_FIELDS: Final = ("projectUrl", "eventTypes", "accessToken", "secretToken", "sslverify", "serviceAccountName")
_SECRETS: Final = {"accessToken": "GITLAB_ACCESS_TOKEN", "secretToken": "GITLAB_SECRET_TOKEN"}
# What a document cannot say, and the environment of `wellhead run -f` may: where GitLab reaches us, for example.
_FROM_ENVIRONMENT: Final = (
    "GITLAB_HOOK_URL", "GITLAB_URL", "GITLAB_API_CA_FILE", "GITLAB_API_SSL_VERIFY", "GITLAB_API_TIMEOUT",
    "GITLAB_SIGNING_TOKEN", "GITLAB_SIGNING_TOKEN_FILE", "GITLAB_ALLOW_ANYONE", "GITLAB_BRANCH_FILTER", "GITLAB_CLEANUP",
    "GITLAB_INTERVAL", "GITLAB_MAPPING", "GITLAB_RESEND", "EXTRA_ATTRIBUTES", "ADDRESS", "PORT", "HEALTH_PORT",
)  # fmt: skip
_PATHS: Final = {
    "GITLAB_PROJECT_URL": "spec.projectUrl",
    "GITLAB_EVENT_TYPES": "spec.eventTypes",
    "GITLAB_EVENT_SOURCE": "spec.projectUrl",
    **{variable: f"spec.{name}" for name, variable in _SECRETS.items()},
}


def from_manifest(
    document: Document, documents: Sequence[Document] = (), environment: Mapping[str, str] | None = None
) -> GitlabConfig:
    """The configuration that a GitLabSource says. Raises `ConfigError` by path.

    ``accessToken`` and ``secretToken`` refer to Secrets among ``documents``; what is not among them is taken from
    ``environment`` (GITLAB_ACCESS_TOKEN, GITLAB_SECRET_TOKEN, or the files that these with _FILE name). Webhooks are
    registered where it has GITLAB_HOOK_URL; without, no accessToken is needed.
    """
    environment = environment or {}
    problems: list[Problem] = []
    variables = {name: environment[name] for name in _FROM_ENVIRONMENT if environment.get(name)}
    if "GITLAB_HOOK_URL" in variables:  # each has a path of its own on the one port
        base = variables["GITLAB_HOOK_URL"].rstrip("/")
        variables["GITLAB_HOOK_URL"] = f"{base}/{document.namespace}/{document.name}"
    variables |= _said(document.spec, problems)
    for name, variable in _SECRETS.items():
        reference = _reference(document, name, problems)
        told = problems if _is_needed(name, environment) else []  # what is not needed may be missing
        if reference is not None and _is_among(documents, reference):
            variables[variable] = _stored(documents, reference, told)
        elif instead := _instead(variable, environment):
            variables |= instead
        elif reference is not None:
            told.append(Problem(reference.path, f"is not among these documents, and {variable} is not set"))
    collector = Collector(variables)
    config = collector.read(GitlabConfig)
    reported = {problem.where.split(".secretKeyRef")[0] for problem in problems}
    for problem in collector.problems:
        where = _path(problem.where)
        if where not in reported:
            reported.add(where)
            problems.append(Problem(where, problem.what))
    if problems or config is None:
        raise ConfigError(problems)
    return config


def _said(spec: Mapping[str, object], problems: list[Problem]) -> dict[str, str]:
    variables: dict[str, str] = {}
    url = spec.get("projectUrl")
    if not isinstance(url, str) or not url:
        problems.append(Problem("spec.projectUrl", "missing field" if url is None else f"{url!r} is not a URL"))
    else:
        variables["GITLAB_PROJECT_URL"] = url
        if any(sign.isspace() or sign == "," for sign in url):
            problems.append(Problem("spec.projectUrl", f"{url!r} is not one URL"))
    kinds = spec.get("eventTypes")
    if not isinstance(kinds, Sequence) or isinstance(kinds, str) or not kinds:
        problems.append(Problem("spec.eventTypes", "missing field" if not kinds else f"{kinds!r} is not a list"))
    else:
        variables["GITLAB_EVENT_TYPES"] = ",".join(map(str, kinds))
    verify = spec.get("sslverify", False)  # as in Knative's CRD
    if not isinstance(verify, bool):
        problems.append(Problem("spec.sslverify", f"{verify!r} is not true or false"))
    else:
        variables["GITLAB_HOOK_SSL_VERIFY"] = str(verify).lower()
    return variables


def missing_secrets(
    document: Document, documents: Sequence[Document], environment: Mapping[str, str]
) -> list[SecretKey]:
    """What `from_manifest` would find neither among ``documents`` nor in ``environment``."""
    references = ((name, _reference(document, name, [])) for name in _SECRETS if _is_needed(name, environment))
    return [
        reference
        for name, reference in references
        if reference is not None and not _is_among(documents, reference) and not _instead(_SECRETS[name], environment)
    ]


def _reference(document: Document, name: str, problems: list[Problem]) -> SecretKey | None:
    """What ``spec.<name>.secretKeyRef`` refers to; None where it is wrong, which is told."""
    path = f"spec.{name}.secretKeyRef"
    value = document.spec.get(name)
    reference = value.get("secretKeyRef") if isinstance(value, Mapping) else None
    if not isinstance(reference, Mapping):
        problems.append(Problem(path, "missing field"))
        return None
    problems += unknown_fields(reference, ("name", "key", "optional"), path)
    wanted, key = reference.get("name"), reference.get("key")
    if not isinstance(wanted, str) or not isinstance(key, str) or not wanted or not key:
        problems.append(Problem(path, "needs name and key"))
        return None
    return SecretKey(path=path, namespace=document.namespace, name=wanted, key=key, instead=_SECRETS[name])


def _is_among(documents: Sequence[Document], reference: SecretKey) -> bool:
    return find_secret(documents, reference.namespace, reference.name) is not None


def _is_needed(name: str, environment: Mapping[str, str]) -> bool:
    return name != "accessToken" or bool(environment.get("GITLAB_HOOK_URL"))


def _instead(variable: str, environment: Mapping[str, str]) -> dict[str, str]:
    """What the environment has in place of a reference."""
    return {name: environment[name] for name in (variable, f"{variable}_FILE") if environment.get(name)}


def _stored(documents: Sequence[Document], reference: SecretKey, problems: list[Problem]) -> str:
    found = secret(documents, reference.namespace, reference.name, reference.key)
    if not found:
        problems.append(
            Problem(f"{reference.path}.key", f"{reference.key!r} is not in Secret {reference.name}, or is no text")
        )
    return (found or "").strip()  # what an editor left at its end is no part of a token


def _path(where: str) -> str:
    """``spec.projectUrl`` for what is told as ``project-url, GITLAB_PROJECT_URL``."""
    return next((path for variable, path in _PATHS.items() if where.endswith(variable)), where)
