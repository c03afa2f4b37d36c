from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from wellhead.access import SinkAccess
from wellhead.batch import BatchLimits
from wellhead.binding import Destination, Ref
from wellhead.credentials import NO_CREDENTIALS, CredentialSources
from wellhead.delivery import Backoff, OnExhausted, Policy
from wellhead.env import Collector, known_names, parse_flags, read, settings
from wellhead.errors import ConfigError
from wellhead.log import LogFormat, LogLevel
from wellhead.settings import (
    KNATIVE_IGNORED,
    DeliverySettings,
    EventMode,
    HeaderValues,
    ProcessSettings,
    SinkSettings,
    listen_address,
    parse_dead_letter_sink,
    prometheus_endpoint,
)
from wellhead.tls import ClientCertificate

if TYPE_CHECKING:
    from wellhead.env import Flags

CONFIGS: Final = (SinkSettings, DeliverySettings, ProcessSettings)
SINK: Final = "http://sink:8080/path"
SECRET: Final = "hunter2"

# Character by character what Knative's controllers write (contract/core.md 1, seen when they were run).
OBSERVABILITY_NONE: Final = (
    '{"tracing":{"protocol":"none"},"metrics":{"protocol":"none"},"runtime":{"profiling":"disabled",'
    '"exportInterval":15000000000},"enableSinkEventErrorReporting":false}'
)
OBSERVABILITY_PROMETHEUS: Final = (
    '{"tracing":{"protocol":"http/protobuf","endpoint":"http://jaeger-collector.observability:4318/v1/traces",'
    '"samplingRate":0.1},"metrics":{"protocol":"prometheus","endpoint":":9092","exportInterval":60000000000},'
    '"runtime":{"profiling":"enabled","exportInterval":15000000000},"enableSinkEventErrorReporting":true}'
)
LEADER_ELECTION: Final = (
    '{"Component":"pingsource","Buckets":1,"LeaseDuration":60000000000,"RenewDeadline":40000000000,'
    '"RetryPeriod":10000000000,"Identity":"","LeaseNamesPrefixMapping":null}'
)
CONTROLLERS_ENVIRONMENT: Final = {
    "K_SINK": "http://event-display.default.svc.cluster.local",
    "K_CE_OVERRIDES": '{"extensions":{"foo":"bar"}}',
    "K_SINK_TIMEOUT": "-1",
    "K_CA_CERTS": "",
    "K_LOGGING_CONFIG": '{"zap-logger-config":"{\\"level\\":\\"info\\"}"}',
    "K_OBSERVABILITY_CONFIG": OBSERVABILITY_PROMETHEUS,
    "K_LEADER_ELECTION_CONFIG": LEADER_ELECTION,
    "METRICS_DOMAIN": "knative.dev/eventing",
    "NAMESPACE": "default",
    "NAME": "heartbeats",
}


def all_flags(*arguments: str) -> Flags:
    return parse_flags(arguments, [known for config in CONFIGS for known in settings(config)])


def problems(env: dict[str, str], *arguments: str) -> list[str]:
    collector = Collector(env, all_flags(*arguments))
    for config in CONFIGS:
        collector.read(config)
    return list(map(str, collector.problems))


# --- What Knative's controllers send


def test_what_knatives_controllers_send_is_read_without_problem_or_warning() -> None:
    collector = Collector(CONTROLLERS_ENVIRONMENT)
    to, delivery, process = (
        collector.read(SinkSettings),
        collector.read(DeliverySettings),
        collector.read(ProcessSettings),
    )
    collector.check()
    assert collector.warnings == []
    assert to is not None
    assert to.sink == Destination(uri="http://event-display.default.svc.cluster.local")
    assert to.overrides == {"foo": "bar"}
    assert delivery is not None
    assert delivery.policy() == Policy()
    assert process is not None
    assert (process.name, process.namespace, process.logging_config) == ("heartbeats", "default", LogLevel.INFO)
    assert process.prometheus == ("", 9092)


@pytest.mark.parametrize("config", CONFIGS)
def test_every_variable_that_is_empty_is_unset(config: type) -> None:
    assert read(config, dict.fromkeys(known_names([config]), "")) == read(config, {})


@pytest.mark.parametrize("text", ["{}", '{"extensions":null}', ""])
def test_overrides_may_be_empty(text: str) -> None:
    assert read(SinkSettings, {"K_CE_OVERRIDES": text}).overrides == {}


@pytest.mark.parametrize("name", ["K_LOGGING_CONFIG", "K_OBSERVABILITY_CONFIG", "K_SINK_TIMEOUT"])
def test_a_broken_knative_setting_is_a_warning_and_its_default_applies(name: str) -> None:
    collector = Collector({name: "{broken"})
    values = [collector.read(config) for config in CONFIGS]
    collector.check()
    assert values == [read(config, {}) for config in CONFIGS]
    assert [warning.where for warning in collector.warnings] == [name]


def test_no_setting_reads_what_knative_sends_and_asks_nothing_of_us() -> None:
    assert set(KNATIVE_IGNORED).isdisjoint(known_names(CONFIGS))


def test_each_flag_and_each_variable_belongs_to_one_setting() -> None:
    flags = [known.flag for config in CONFIGS for known in settings(config) if known.flag]
    names = list(known_names(CONFIGS))
    assert (len(set(flags)), len(set(names))) == (len(flags), len(names))


# --- The sink


@pytest.mark.parametrize(
    ("env", "arguments", "uri"),
    [
        ({"K_SINK": SINK}, [], SINK),
        ({"SINK": SINK}, [], SINK),
        ({"K_SINK": SINK, "SINK": "http://other"}, [], SINK),
        ({"K_SINK": "", "SINK": SINK}, [], SINK),
        ({}, ["--sink", SINK], SINK),
        ({"K_SINK": "http://other"}, [f"-sink={SINK}"], SINK),
    ],
)
def test_the_sink_is_k_sink_or_sink_or_the_flag(env: dict[str, str], arguments: list[str], uri: str) -> None:
    assert read(SinkSettings, env, all_flags(*arguments)).sink == Destination(uri=uri)


def test_a_sink_may_be_named_as_kn_does_and_said_where_it_is() -> None:
    named = read(
        SinkSettings, {"SINK": "ksvc:display:ns"}, all_flags("--ref", "display=http://a", "--ref", "b=http://b")
    )
    ref = Ref(kind="Service", name="display", namespace="ns", apiVersion="serving.knative.dev/v1")
    assert (named.sink, named.refs) == (Destination(ref=ref), {"display": "http://a", "b": "http://b"})


def test_without_a_sink_there_is_none_and_events_go_binary_and_raw() -> None:
    to = read(SinkSettings, {})
    assert (to.sink, to.mode, to.headers) == (None, EventMode.BINARY, HeaderValues.RAW)


def test_batches_are_asked_for_by_the_mode_and_bounded() -> None:
    assert read(SinkSettings, {"BATCH_SIZE": "7"}).batch() is None
    assert read(SinkSettings, {"EVENT_MODE": "batch"}).batch() == BatchLimits(100, 1 << 20, timedelta(milliseconds=5))
    asked = {"EVENT_MODE": "batch", "BATCH_SIZE": "7", "BATCH_BYTES": "4096", "BATCH_LINGER": "0"}
    assert read(SinkSettings, asked).batch() == BatchLimits(7, 4096, timedelta())
    assert problems({"SINK": "http://sink", "BATCH_SIZE": "0", "BATCH_BYTES": "0", "BATCH_LINGER": "11s"}) == [
        "BATCH_SIZE: '0' is not a whole number from 1 to 10000",
        "BATCH_BYTES: '0' is not a whole number from 1 to 67108864",
        "BATCH_LINGER: '11s' is longer than 10s",
    ]


def test_connections_are_bounded_in_number_age_and_the_time_they_take() -> None:
    ours = read(ProcessSettings, {})
    assert (ours.on_wire, ours.connection_age, ours.connect_timeout) == (
        128, timedelta(seconds=60), timedelta(seconds=10),
    )  # fmt: skip
    wrong = {"SINK_CONCURRENCY": "0", "SINK_CONNECTION_AGE": "0s", "SINK_CONNECT_TIMEOUT": "never"}
    assert problems({"SINK": "http://sink", **wrong}) == [
        "SINK_CONCURRENCY: '0' is not a whole number from 1 to 10000",
        "SINK_CONNECT_TIMEOUT: 'never' is not a duration such as 500ms, 5s or 1m30s",
        "SINK_CONNECTION_AGE: '0s' is not longer than 0",
    ]


def test_every_wrong_setting_is_told_at_once() -> None:
    env = {
        "SINK": "nowhere",
        "K_CE_OVERRIDES": '{"extensions":{"id":"x","a-b":"y"}}',
        "EVENT_MODE": "heap",
        "GRACE": "soon",
    }
    assert problems(env, "--retry=-1", "--header=raw") == [
        "--header: no such flag; did you mean --headers?",
        "SINK: 'nowhere' is not an absolute URL: it needs a scheme, as in http://host:port/path",
        "K_CE_OVERRIDES: extensions.id: is an attribute of CloudEvents itself; an override sets extensions only",
        "K_CE_OVERRIDES: extensions.'a-b': an extension's name consists of a-z and 0-9 only",
        "EVENT_MODE: 'heap' is not one of binary, structured, batch",
        "--retry: '-1' is not a whole number from 0 to 2147483647",
        "GRACE: 'soon' is not a duration such as 500ms, 5s or 1m30s",
    ]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("K_SINK", f"http://user:{SECRET}@sink"),
        ("K_SINK", f"http://user:{SECRET}/@sink"),
        ("K_SINK", f"sink?token={SECRET}"),
        ("DEAD_LETTER_SINK", f"http://user:{SECRET}@sink"),
        ("SINK_REFS", f"name=http://user:{SECRET}@sink"),
        ("K_CA_CERTS", f"-----BEGIN {SECRET}-----"),
    ],
)
def test_no_secret_is_in_any_message(name: str, value: str) -> None:
    found = problems({name: value})
    assert [problem.partition(":")[0] for problem in found] == [name]
    assert SECRET not in str(found)


def test_no_secret_is_in_the_repr() -> None:
    env = {"K_SINK": f"http://sink?token={SECRET}", "SINK_REFS": f"a=http://sink?token={SECRET}"}
    assert SECRET not in repr(read(SinkSettings, env))
    assert SECRET not in repr(read(DeliverySettings, {"DEAD_LETTER_SINK": f"http://sink?token={SECRET}"}))


def test_certificates_are_checked_at_start_and_kept_out_of_the_repr() -> None:
    pem = trustme.CA().cert_pem.bytes().decode()
    to = read(SinkSettings, {"K_CA_CERTS": pem})
    assert to.ca_certs == pem
    assert "CERTIFICATE" not in repr(to)


@pytest.mark.parametrize("text", ["a\x00b", "\x00"])
def test_a_path_holds_no_null(text: str) -> None:
    assert problems({"OIDC_TOKEN_FILE": text}) == [f"OIDC_TOKEN_FILE: {text!a} is no path"]


def test_the_token_file_is_the_one_that_a_sink_binding_mounts_unless_said_otherwise() -> None:
    assert read(SinkSettings, {}).token_file == Path("/oidc/token")
    assert read(SinkSettings, {"OIDC_TOKEN_FILE": "/run/token"}).token_file == Path("/run/token")


# --- Who we are to the sink


def pair(folder: Path) -> tuple[Path, Path]:
    leaf = trustme.CA().issue_cert("me.example")
    leaf.cert_chain_pems[0].write_to_path(str(folder / "tls.crt"))
    leaf.private_key_pem.write_to_path(str(folder / "tls.key"))
    return folder / "tls.crt", folder / "tls.key"


def test_credentials_come_from_the_environment_and_from_files(tmp_path: Path) -> None:
    (tmp_path / "headers").write_text("X-Key: abc")
    (tmp_path / "password").write_text(SECRET)
    env = {
        "SINK_USERNAME": "me",
        "SINK_PASSWORD_FILE": str(tmp_path / "password"),
        "SINK_HEADERS": '{"X-Tenant": "alps"}',
        "SINK_HEADERS_FILE": str(tmp_path / "headers"),
        "DEAD_LETTER_CREDENTIALS": "true",
    }
    access = read(SinkSettings, env).access()
    assert access.credentials == CredentialSources(
        username="me",
        password_file=tmp_path / "password",
        headers=(("X-Tenant", "alps"),),
        headers_file=tmp_path / "headers",
    )
    assert access.dead_letters_too


def test_a_client_certificate_and_authorities_come_from_files(tmp_path: Path) -> None:
    cert, key = pair(tmp_path)
    flags = all_flags("--client-cert", str(cert), "--client-key", str(key), "--ca-file", str(cert))
    access = read(SinkSettings, {}, flags).access()
    assert access.client == ClientCertificate(cert=cert, key=key)
    assert access.ca_file == cert
    assert not access.dead_letters_too


def test_a_dead_letter_sink_is_not_told_who_we_are_unless_it_was_said() -> None:
    access = SinkAccess(client=ClientCertificate(cert=Path("c")), ca_file=Path("a"))
    assert access.for_dead_letters() == SinkAccess(credentials=NO_CREDENTIALS, ca_file=Path("a"))
    told = SinkAccess(client=ClientCertificate(cert=Path("c")), dead_letters_too=True)
    assert told.for_dead_letters() == told


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({"SINK_TOKEN": f"{SECRET} x"}, ["SINK_TOKEN: is no token: printable ASCII without blanks, 16384 characters at most"]),
        ({"SINK_PASSWORD": f"{SECRET}\n"},
         ["SINK_PASSWORD: is no password: one line without control characters, 16384 characters at most"]),
        ({"SINK_HEADERS": f"X: {SECRET}\nce-id: {SECRET}\n{SECRET}"},
         ["SINK_HEADERS: line 2: gives ce-id, which is Wellhead's own to send",
          "SINK_HEADERS: line 3: is not Name: value, with a name that HTTP allows"]),
        ({"SINK_TOKEN": SECRET, "SINK_USERNAME": "me", "SINK_PASSWORD": SECRET},
         ["SINK_USERNAME and SINK_TOKEN: each say what Authorization to send; one of them"]),
        ({"SINK_CLIENT_KEY_FILE": "/k"}, ["SINK_CLIENT_KEY_FILE: is set without SINK_CLIENT_CERT_FILE"]),
        ({"SINK_CLIENT_KEY_PASSWORD_FILE": "/k"},
         ["SINK_CLIENT_KEY_PASSWORD_FILE: is set without SINK_CLIENT_CERT_FILE"]),
        ({"SINK_CA_FILE": "/nowhere/ca", "SINK_CLIENT_CERT_FILE": "/nowhere/crt", "SINK_HEADERS_FILE": "/nowhere/h",
          "SINK_USERNAME": "me", "SINK_PASSWORD_FILE": "/nowhere/p"},
         ["SINK_PASSWORD_FILE: /nowhere/p is not there", "SINK_HEADERS_FILE: /nowhere/h is not there",
          "SINK_CA_FILE: /nowhere/ca is not there", "SINK_CLIENT_CERT_FILE: /nowhere/crt is not there"]),
    ],
)  # fmt: skip
def test_what_is_wrong_with_credentials_is_told_at_the_start(env: dict[str, str], expected: list[str]) -> None:
    assert problems(env) == expected


def test_the_key_of_another_certificate_is_told_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (cert, _), (_, key) = pair(tmp_path), pair(tmp_path / "other")
    assert problems({}, "--client-cert", str(cert), "--client-key", str(key)) == [
        "SINK_CLIENT_CERT_FILE: the client certificate's key is not the one of the certificate"
    ]


def test_no_secret_has_a_flag() -> None:
    """Process arguments are for everyone to read."""
    assert [known.name for config in CONFIGS for known in settings(config) if known.secret and known.flag] == [
        "sink", "refs", "ca_certs", "dead_letter_sink",  # URLs, whose query may be one, and what is public
    ]  # fmt: skip


URLS: Final = (f"http://sink?token={SECRET}", f"x=http://sink?token={SECRET}", f"http://u:{SECRET}@sink")
TEXTS: Final = (SECRET, f"{SECRET}\0", f"X-Key: {SECRET}", f'{{"X-Key": "{SECRET}"}}', f"ce-id: {SECRET}")


@given(
    st.fixed_dictionaries(
        {},
        optional={
            known.env[0]: st.sampled_from(URLS if known.env[0] in ("K_SINK", "SINK_REFS") else TEXTS)
            for known in settings(SinkSettings)
            if known.secret
        },
    ),
    st.sampled_from([{}, {"SINK_USERNAME": "me"}]),
)
def test_no_secret_setting_is_in_any_message_or_repr(given: dict[str, str], named: dict[str, str]) -> None:
    collector = Collector(given | named)
    made = collector.read(SinkSettings)
    shown = f"{made!r}{made}{made.access() if made else ''}{collector.problems}{collector.warnings}"
    assert SECRET not in shown


# --- Delivery


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("", 30), ("-1", 30), ("-5", 30), ("0", None), ("1", 1), ("999", 999), ("x", 30), ("1.5", 30), ("9" * 30, 30)],
)
def test_k_sink_timeout_sets_the_time_of_a_try_0_is_none_and_minus_1_is_ours(text: str, seconds: int | None) -> None:
    policy = read_tolerantly(text).policy()
    assert policy.timeout == (None if seconds is None else timedelta(seconds=seconds))


def read_tolerantly(sink_timeout: str) -> DeliverySettings:
    delivery = Collector({"K_SINK_TIMEOUT": sink_timeout}).read(DeliverySettings)
    assert delivery is not None
    return delivery


def test_delivery_settings_become_the_policy() -> None:
    arguments = (
        "--retry=0", "--backoff-policy=linear", "--backoff-delay=PT0.2S", "--retry-after-max=0", "--poison-after=2h",
        "--on-exhausted=hold", "--sink-timeout=5",
    )  # fmt: skip
    assert read(DeliverySettings, {}, all_flags(*arguments)).policy() == Policy(
        retries=0,
        backoff=Backoff.LINEAR,
        backoff_delay=timedelta(milliseconds=200),
        retry_after_max=timedelta(),
        timeout=timedelta(seconds=5),
        poison_after=timedelta(hours=2),
        on_exhausted=OnExhausted.HOLD,
    )


# --- The process


def test_the_process_has_25_s_of_grace_and_logs_as_it_finds_best() -> None:
    process = read(ProcessSettings, {})
    assert (process.grace, process.log_level, process.log_format) == (timedelta(seconds=25), None, LogFormat.AUTO)
    assert (process.health_port, process.health_address) == (None, "")


@pytest.mark.parametrize("value", ["a b", "é", "x\n", "x" * 254])
@pytest.mark.parametrize("name", ["NAME", "NAMESPACE"])
def test_a_name_that_would_break_a_header_or_a_label_is_refused(name: str, value: str) -> None:
    (problem,) = problems({name: value})
    assert problem.endswith("holds characters that no Kubernetes name has")


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        (OBSERVABILITY_NONE, None),
        (OBSERVABILITY_PROMETHEUS, ("", 9092)),
        ("{}", None),
        ('{"metrics":null}', None),
        ('{"metrics":{"protocol":"grpc","endpoint":"x:1"}}', None),
        ('{"metrics":{"protocol":"prometheus"}}', ("", 9092)),
        ('{"metrics":{"protocol":"prometheus","endpoint":""}}', ("", 9092)),
        ('{"metrics":{"protocol":"prometheus","endpoint":"127.0.0.1:9000"}}', ("127.0.0.1", 9000)),
        ('{"metrics":{"protocol":"prometheus","endpoint":"::1:9000"}}', ("::1", 9000)),
    ],
)
def test_knatives_observability_config_says_where_metrics_are_wanted(
    text: str, endpoint: tuple[str, int] | None
) -> None:
    assert prometheus_endpoint(text) == endpoint


@pytest.mark.parametrize("endpoint", ['"x"', '"x:"', '":0"', '":65536"', '":99999999999"', "5", '"a b:1"', '":٩"'])
def test_a_metrics_endpoint_that_is_none_is_refused(endpoint: str) -> None:
    with pytest.raises(ValueError, match=r"^has a metrics endpoint that is not host:port$"):
        prometheus_endpoint(f'{{"metrics":{{"protocol":"prometheus","endpoint":{endpoint}}}}}')


@pytest.mark.parametrize("address", ["", "0.0.0.0", "::", "::1", "fe80::1%eth0", "localhost", "a.b-c.example"])
def test_an_address_to_listen_on_is_a_name_or_an_ip_address(address: str) -> None:
    assert listen_address(address) == address


@pytest.mark.parametrize("address", ["a b", "é", "a..b", "http://h", "x" * 300, "[::1]", "a\n"])
def test_an_address_that_nothing_can_listen_on_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match=r"^is no host name and no IP address$"):
        listen_address(address)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("file:///var/tmp/dead.jsonl", "/var/tmp/dead.jsonl"),
        ("FILE:/dead.jsonl", "/dead.jsonl"),
        ("file://localhost/a%20b", "/a b"),
    ],
)
def test_a_dead_letter_sink_may_be_a_file(text: str, path: str) -> None:
    assert parse_dead_letter_sink(text) == Path(path)


@pytest.mark.parametrize(
    "text",
    ["file:", "file://", "file:///", "file://host/dead", "file:dead", "file:///a/", "file:///a?b", "file:///a%00"],
)
def test_a_file_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^is not a file such as file:///var/tmp/dead\.jsonl$"):
        parse_dead_letter_sink(text)


def test_a_dead_letter_sink_is_else_what_a_sink_is() -> None:
    assert parse_dead_letter_sink("http://dead") == Destination(uri="http://dead")


def test_a_setting_that_is_wrong_ends_the_start() -> None:
    with pytest.raises(ConfigError, match=r"^HEALTH_PORT: '65536' is not a whole number from 0 to 65535$"):
        read(ProcessSettings, {"HEALTH_PORT": "65536"})
