"""A GitLabSource document as a configuration (contract/sources.md B1). Pure: what the environment adds is handed in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from wellhead.env import Collector
from wellhead.errors import ConfigError, Problem
from wellhead.manifest import secret, unknown_fields

from .config import GitlabConfig

if TYPE_CHECKING:
    from wellhead.manifest import Document

SPEC_FIELDS: Final = ("projectUrl", "eventTypes", "accessToken", "secretToken", "sslverify", "serviceAccountName")
_SECRETS: Final = {"accessToken": "GITLAB_ACCESS_TOKEN", "secretToken": "GITLAB_SECRET_TOKEN"}
# What a document cannot say, and the environment of `wellhead run -f` may: where GitLab reaches us, for example.
_FROM_ENVIRONMENT: Final = (
    "GITLAB_HOOK_URL", "GITLAB_URL", "GITLAB_API_CA_FILE", "GITLAB_API_SSL_VERIFY", "GITLAB_ALLOW_ANYONE", "GITLAB_CLEANUP",
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

    ``accessToken`` and ``secretToken`` refer to Secrets among ``documents``; one that is not among them is taken from
    ``environment`` (GITLAB_ACCESS_TOKEN, GITLAB_SECRET_TOKEN). Webhooks are registered where it has GITLAB_HOOK_URL.
    """
    environment = environment or {}
    problems: list[Problem] = []
    variables = {name: environment[name] for name in _FROM_ENVIRONMENT if environment.get(name)}
    if "GITLAB_HOOK_URL" in variables:  # each has a path of its own on the one port
        base = variables["GITLAB_HOOK_URL"].rstrip("/")
        variables["GITLAB_HOOK_URL"] = f"{base}/{document.namespace}/{document.name}"
    variables |= _said(document.spec, problems)
    for name, variable in _SECRETS.items():
        found = _secret(document, name, documents, problems) or environment.get(variable, "")
        if found:
            variables[variable] = found
        elif not any(problem.where.startswith(f"spec.{name}") for problem in problems):
            where = f"spec.{name}.secretKeyRef"
            problems.append(Problem(where, f"is not among these documents, and {variable} is not set"))
    collector = Collector(variables)
    config = collector.read(GitlabConfig)
    told = {problem.where.split(".secretKeyRef")[0] for problem in problems}
    for problem in collector.problems:
        where = _path(problem.where)
        if where not in told:
            told.add(where)
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


def _secret(document: Document, name: str, documents: Sequence[Document], problems: list[Problem]) -> str:
    """What ``spec.<name>.secretKeyRef`` leads to; "" where it is not among the documents, or wrong and told."""
    path = f"spec.{name}"
    value = document.spec.get(name)
    reference = value.get("secretKeyRef") if isinstance(value, Mapping) else None
    if not isinstance(reference, Mapping):
        problems.append(Problem(f"{path}.secretKeyRef", "missing field"))
        return ""
    problems += unknown_fields(reference, ("name", "key", "optional"), f"{path}.secretKeyRef")
    wanted, key = reference.get("name"), reference.get("key")
    if not isinstance(wanted, str) or not isinstance(key, str):
        problems.append(Problem(f"{path}.secretKeyRef", "needs name and key"))
        return ""
    if not any((one.kind, one.namespace, one.name) == ("Secret", document.namespace, wanted) for one in documents):
        return ""
    found = secret(documents, document.namespace, wanted, key)
    if not found:
        problems.append(Problem(f"{path}.secretKeyRef.key", f"{key!r} is not in Secret {wanted}, or is no text"))
    return (found or "").strip()  # what an editor left at its end is no part of a token


def _path(where: str) -> str:
    """``spec.projectUrl`` for what is told as ``project-url, GITLAB_PROJECT_URL``."""
    return next((path for variable, path in _PATHS.items() if where.endswith(variable)), where)
