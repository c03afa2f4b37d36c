"""Builds a Go module of this folder once for its sources, into the cache outside the checkout.

PeerError           what a test cannot repair
├── PeerMissing     this machine cannot build the peers: no Go, one too old, or no modules to be had
└── PeerBroken      the peers' code does not build, or a program did not start
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class PeerError(Exception):
    """A peer is not to be had; the text says why."""


class PeerMissing(PeerError):
    """This machine cannot build the peers; another one can."""


class PeerBroken(PeerError):
    """A peer does not build or start, and would not on another machine either."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GoModule:
    """A folder with a go.mod, whose ``cmd/*`` are programs."""

    sources: Path
    flags: tuple[str, ...] = ()
    """Further arguments of ``go build``."""
    build_seconds: float

    def build(self) -> Path:
        """Return the folder that holds its programs.

        Builds them at the first call for these sources, for later calls it only looks them up. Safe to call from
        several processes at once. Raises PeerMissing or PeerBroken; a failed build leaves nothing behind.
        """
        cache = self._cache()
        built = cache / self._fingerprint()
        if built.is_dir():
            return built
        cache.mkdir(parents=True, exist_ok=True)
        with _locked(cache / "lock"):
            if not built.is_dir():  # another process may have built them while this one waited
                self._build_into(built)
        return built

    def _cache(self) -> Path:
        root = os.environ.get("WELLHEAD_CACHE") or Path.home() / ".cache" / "wellhead"
        return Path(root).absolute() / self.sources.name

    def _fingerprint(self) -> str:
        digest = hashlib.sha256()
        for path in sorted([*self.sources.rglob("*.go"), self.sources / "go.mod", self.sources / "go.sum"]):
            content = path.read_bytes()
            digest.update(f"{path.relative_to(self.sources).as_posix()} {len(content)}\n".encode())
            digest.update(content)
        for flag in self.flags:
            digest.update(f"{flag}\n".encode())
        return digest.hexdigest()[:16]

    def _build_into(self, folder: Path) -> None:
        go = shutil.which("go")
        name = f"tests/interop/{self.sources.name}"
        if go is None:
            raise PeerMissing(f"no program `go` on PATH: the Go programs of {name} cannot be built")
        # Apart from the compilation, so that no network and an old Go are told from an error in our sources.
        modules = self._go(go, "mod", "download")
        if modules.returncode != 0:
            raise PeerMissing(f"go mod download failed in {name}: {modules.stderr.strip()}")
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            programs = Path(scratch) / folder.name
            programs.mkdir()
            build = self._go(go, "build", "-trimpath", "-buildvcs=false", *self.flags, "-o", str(programs), "./cmd/...")
            if build.returncode != 0:
                raise PeerBroken(f"go build failed in {name}: {build.stderr.strip()}")
            programs.rename(folder)  # at once: a build cut short is never taken for a whole one

    def _go(self, go: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        # Neither a workspace around the checkout nor a C compiler may decide whether, or what, is built.
        environment = {**os.environ, "GOWORK": "off", "CGO_ENABLED": "0"}
        try:
            return subprocess.run(
                [go, *arguments],
                check=False,
                cwd=self.sources,
                env=environment,
                capture_output=True,
                text=True,
                timeout=self.build_seconds,
            )
        except subprocess.TimeoutExpired as late:
            raise PeerMissing(f"go {arguments[0]} did not end within {self.build_seconds:.0f} s") from late


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # closing the file releases it, so does the death of the process
        yield
