"""Hook events a second through `wellhead gitlab` to a sink, and how long the slowest took, beside a Go program."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.bench.figures import Budget, Result, Row
from tests.bench.load import CONNECTIONS, has_wrk
from tests.bench.machine import BenchError, Plan, go_peers, peak_mib, serving

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tests.bench.machine import Server

_TOKEN: Final = "bench"
_BODY: Final = Path(__file__).parents[1] / "samples/gitlab_webhooks/go-playground/push-event.json"
_LISTENING: Final = r"listening on 127\.0\.0\.1:(\d+)"
_TAKEN: Final = r"requests are taken.*\"port\": (\d+)"
_OURS, _GO = "ours", "Go, 1 core"
_QUICK: Final = "a sink at once"
_SLOW: Final = "a sink of 20 ms"
# Each request is another delivery: the same key would be answered without being sent.
_SCRIPT: Final = """
wrk.method = "POST"
wrk.body = [==[%s]==]
wrk.headers["Content-Type"] = "application/json"
wrk.headers["X-Gitlab-Event"] = "Push Hook"
wrk.headers["X-Gitlab-Token"] = "%s"
local run, number = string.format("%%x", os.time()) .. tostring({}):sub(8), 0
request = function()
  number = number + 1
  wrk.headers["Idempotency-Key"] = run .. number
  return wrk.format()
end
done = function(summary, latency, requests)
  local failed = summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout
  io.stderr:write(string.format('{"requests":%%d,"micros":%%d,"refused":%%d,"failed":%%d,"p99":%%d}', summary.requests,
    summary.duration, summary.errors.status, failed, latency:percentile(99)))
end
"""


@dataclass(frozen=True, slots=True)
class _Taken:
    per_second: float
    p99_millis: float
    peak_mib: float | None


def run(plan: Plan) -> Result:
    """Both programs before both sinks are started once; then each in turn gets the load, while the others idle."""
    folder, missing = go_peers()
    if folder is None or not has_wrk():
        return Result("gitlab", [], [missing or "NO wrk (apt-get install wrk): nothing was measured"])
    seconds = 1 if plan.quick else 3
    with ExitStack() as servers, tempfile.TemporaryDirectory() as place:
        secret = Path(place) / "secret"
        secret.write_text(_TOKEN, encoding="ascii")
        sides: dict[str, Callable[[], _Taken]] = {}
        for what, flags in ((_QUICK, ()), (_SLOW, ("-delay", "20ms"))):
            sink = servers.enter_context(serving((str(folder / "sinkserver"), *flags), announced=_LISTENING)).url
            ours = servers.enter_context(serving(_ours(sink, secret), announced=_TAKEN))
            go = servers.enter_context(serving(_go(folder, sink), announced=_LISTENING))
            sides |= {f"{_OURS}, {what}": _loading(ours, seconds), f"{_GO}, {what}": _loading(go, seconds)}
        for side in sides.values():
            side()  # once unmeasured: heaps and caches find their size
        found = plan.rounds_of(sides)
    return Result(
        "gitlab", _rows(found), [f"load by wrk, one thread, {CONNECTIONS} connections; a push event of GitLab's"]
    )


def _ours(sink: str, secret: Path) -> Sequence[str]:
    return (
        sys.executable, "-m", "wellhead_adapters.gitlab", "--sink", sink, "--address", "127.0.0.1", "--port", "0",
        "--health-port", "0", "--secret-token-file", str(secret), "--log-format", "json",
        "--event-source", "https://gitlab.example.com/group/project",
    )  # fmt: skip


def _go(folder: Path, sink: str) -> Sequence[str]:
    return (str(folder / "webhook"), "-sink", sink, "-token", _TOKEN, "-gomaxprocs", "1")


def _loading(server: Server, seconds: int) -> Callable[[], _Taken]:
    def measure() -> _Taken:
        with tempfile.TemporaryDirectory() as folder:
            script = Path(folder) / "hook_events.lua"
            script.write_text(_SCRIPT % (_BODY.read_text(encoding="utf-8"), _TOKEN), encoding="utf-8")
            command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", f"-s{script}", server.url]
            done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=seconds + 30)
        if done.returncode != 0:
            raise BenchError(f"wrk: {done.stderr.strip()}")
        figures: dict[str, int] = json.loads(done.stderr)
        if figures["refused"] or figures["failed"]:
            raise BenchError(f"{server.url} did not take all: {figures}")
        return _Taken(figures["requests"] / figures["micros"] * 1e6, figures["p99"] / 1e3, peak_mib(server.pid))

    return measure


def _rows(found: Mapping[str, Sequence[_Taken]]) -> list[Row]:
    rows = []
    for what, bound in ((_QUICK, 0.8), (_SLOW, 1.0)):
        ours, go = found[f"{_OURS}, {what}"], found[f"{_GO}, {what}"]
        rate = [[one.per_second for one in side] for side in (ours, go)]
        late = [[one.p99_millis for one in side] for side in (ours, go)]
        budget = Budget(bound=bound, at_most=False, of_ratio=True)
        rows += [
            Row(what=f"delivered to {what}", unit="events/s", ours=rate[0], peer=_GO, theirs=rate[1], budget=budget),
            Row(what=f"99th of 100, {what}", unit="ms", ours=late[0], peer=_GO, theirs=late[1]),
        ]
    peaks = [[one.peak_mib for one in found[f"{side}, {_QUICK}"] if one.peak_mib is not None] for side in (_OURS, _GO)]
    if peaks[0]:
        rows.append(
            Row(what="memory", unit="MiB peak", ours=peaks[0], peer=_GO, theirs=peaks[1], budget=Budget(bound=60))
        )
    return rows
