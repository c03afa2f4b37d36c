"""The images, built and run where there is neither a container engine nor a registry.

debootstrap makes a base, buildah builds docker/Dockerfile upon it, and unshare starts the result as a pod with the
restricted profile would: numeric user, no capabilities, no new privileges, read-only root, PID 1 of its own. Only the
network is the host's, so that programs meet on loopback.

What is slow is kept in $WELLHEAD_CACHE/images (default ~/.cache/wellhead/images); delete it to begin anew, or to take
up the distribution's updates. This file knows how to build and run; what the images promise is test_images.py's matter.
"""

from __future__ import annotations

import ast
import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

CHECKOUT: Final = Path(__file__).resolve().parents[2]
TOOLS: Final = ("buildah", "debootstrap", "env", "mount", "setpriv", "sh", "unshare")
BASE_PACKAGES: Final = ("python3", "python3-pip")
BASE_WITHOUT: Final = (  # the machine's own, and what only takes time to copy
    "dev/*",
    "etc/apt/sources.list",
    "etc/hostname",
    "etc/resolv.conf",
    "usr/share/doc/*",
    "usr/share/locale/*",
    "usr/share/man/*",
    "var/cache/apt/*",
    "var/cache/debconf/*",
    "var/lib/apt/lists/*",
    "var/log/*",
)
LAYERS_KEPT: Final = 40  # some 20 MB each
BUILD_SECONDS: Final = 1200
TOOL_SECONDS: Final = 300

# Runs as PID 1 of a mount and a PID namespace of its own, and becomes the program. $1 root, $2 ro or rw.
MOUNT_AND_EXEC: Final = """
root=$1 mode=$2; shift 2
mount --bind "$root" "$root"
mount -t proc -o nosuid,nodev,noexec proc "$root/proc"
mount -t tmpfs -o nosuid,noexec,mode=755 tmpfs "$root/dev"
for device in null zero full random urandom; do
  : > "$root/dev/$device"
  mount --bind "/dev/$device" "$root/dev/$device"
done
for file in hosts resolv.conf; do
  test -e "$root/etc/$file" || : > "$root/etc/$file"
  mount --bind "/etc/$file" "$root/etc/$file"
done
mount -o "remount,bind,$mode" "$root"
exec "$@"
"""


class ImagesMissing(Exception):
    """Images cannot be built on this machine; the message says what it lacks."""


class ToolFailed(Exception):
    """A tool that is there ended with an error; the message ends with what it printed last."""


class NotSeen(Exception):
    """What was waited for did not come in time, or cannot come any more; the message tells what came instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageConfig:
    """What an image says about how it is to be started."""

    entrypoint: Sequence[str]
    command: Sequence[str]
    environment: Mapping[str, str]
    user: str
    working_directory: str
    labels: Mapping[str, str]
    ports: frozenset[str]


class Images:
    """A store of images of this checkout. Open one with `Images.open()`."""

    def __init__(self, folder: Path, driver: str) -> None:
        self._folder = folder
        self._driver = driver
        self._built: dict[str, str] = {}

    @classmethod
    def open(cls) -> Images:
        """The store in the cache, with the base in it: made now if it is not there. Raises ImagesMissing."""
        _check_the_machine()
        cache = Path(os.environ.get("WELLHEAD_CACHE") or Path.home() / ".cache" / "wellhead")
        folder = cache.resolve() / "images"
        if folder.is_relative_to(CHECKOUT):
            raise ImagesMissing(f"WELLHEAD_CACHE={cache} lies inside the checkout")
        folder.mkdir(parents=True, exist_ok=True)
        images = cls(folder, _storage_driver(folder))
        with images._locked():
            images._make_base()
        return images

    def build(self, target: str) -> str:
        """Build one target of docker/Dockerfile from the checkout as it is; the image's name. Raises ToolFailed."""
        if target not in self._built:
            name = f"localhost/wellhead/{target}:test"
            with self._locked(), _pip_secrets() as secrets:
                self._buildah(
                    *("bud", "--quiet", "--layers", *secrets, "--file", str(CHECKOUT / "docker" / "Dockerfile")),
                    *("--build-arg", f"BASE={_base_name()}", "--build-arg", f"VERSION={project_version()}"),
                    *("--target", target, "--tag", name, str(CHECKOUT)),
                    seconds=BUILD_SECONDS,
                )
                self._prune()
            self._built[target] = name
        return self._built[target]

    @contextlib.contextmanager
    def layer(self, dockerfile: str) -> Iterator[str]:
        """An image built from the text of a Dockerfile and nothing else, as a user adds a layer of their own."""
        name = f"localhost/wellhead/layer:{hashlib.sha256(dockerfile.encode()).hexdigest()[:12]}"
        with tempfile.TemporaryDirectory() as context:
            (Path(context) / "Dockerfile").write_text(dockerfile)
            with self._locked():
                self._buildah("bud", "--quiet", "--tag", name, context)
        try:
            yield name
        finally:
            with self._locked():
                self._buildah("rmi", name)

    def config(self, image: str) -> ImageConfig:
        inspected = json.loads(self._buildah("inspect", "--type", "image", image))
        config = cast("dict[str, object]", inspected["OCIv1"]["config"])
        return ImageConfig(
            entrypoint=cast("list[str]", config.get("Entrypoint") or []),
            command=cast("list[str]", config.get("Cmd") or []),
            environment=dict(pair.split("=", 1) for pair in cast("list[str]", config.get("Env") or [])),
            user=cast("str", config.get("User") or ""),
            working_directory=cast("str", config.get("WorkingDir") or "/"),
            labels=cast("dict[str, str]", config.get("Labels") or {}),
            ports=frozenset(cast("dict[str, object]", config.get("ExposedPorts") or {})),
        )

    @contextlib.contextmanager
    def container(self, image: str) -> Iterator[Container]:
        """A container of the image: a root file system of its own, in which any number of programs are started. What
        still runs at the end is killed."""
        with self._locked():
            name = self._buildah("from", "--pull-never", image)
            root = Path(self._buildah("mount", name))
        container = Container(root, self.config(image))
        try:
            yield container
        finally:
            container.kill()
            with self._locked():
                self._buildah("rm", name)

    def _make_base(self) -> None:
        if self._buildah("images", "--quiet", "--filter", f"reference={_base_name()}"):
            return
        tarball = self._folder / f"{_base_name().rpartition(':')[2]}.tar"
        if not tarball.exists():
            _bootstrap(tarball)
        container = self._buildah("from", "scratch")
        try:
            self._buildah("add", "--quiet", container, str(tarball), "/")
            self._buildah("commit", "--quiet", container, _base_name())
        finally:
            self._buildah("rm", container)

    def _prune(self) -> None:
        """Forget the layers that builds have left to be used again, once most of them are of checkouts long gone."""
        if len(self._buildah("images", "--quiet", "--filter", "dangling=true").splitlines()) > LAYERS_KEPT:
            with contextlib.suppress(
                ToolFailed
            ):  # what a container of another run uses stays, and is told of as an error
                self._buildah("rmi", "--prune")

    def _buildah(self, *arguments: str, seconds: float = TOOL_SECONDS) -> str:
        store = self._folder / self._driver
        return _run(
            *("buildah", "--storage-driver", self._driver, "--root", str(store / "root"), "--runroot"),
            *(str(store / "run"), *arguments),
            environment={"BUILDAH_ISOLATION": "chroot"},
            seconds=seconds,
        )

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """One at a time, whatever process: two test runs share the cache."""
        with (self._folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


class Container:
    """A root file system made from an image, and the programs started in it."""

    def __init__(self, root: Path, config: ImageConfig) -> None:
        self.root = root
        self.config = config
        self._programs: list[Program] = []

    def start(
        self,
        *arguments: str,
        environment: Mapping[str, str] | None = None,
        entrypoint: Sequence[str] | None = None,
        read_only: bool = True,
    ) -> Program:
        """Start what the image starts, or `entrypoint`, with exactly the image's environment and the one given."""
        user, _, group = self.config.user.partition(":")
        variables = {**self.config.environment, **(environment or {})}
        begin = self.config.entrypoint if entrypoint is None else entrypoint
        follow = arguments or (self.config.command if entrypoint is None else ())
        program = Program(
            [
                *("unshare", "--mount", "--pid", "--fork", "--kill-child=KILL", "--"),
                *("sh", "-ec", MOUNT_AND_EXEC, "container", str(self.root), "ro" if read_only else "rw"),
                *("env", "-i", *(f"{name}={value}" for name, value in variables.items())),
                *(_path_of("setpriv"), "--no-new-privs", _path_of("unshare"), f"--root={self.root}"),
                *(f"--wd={self.config.working_directory}", f"--setgid={group or user}", f"--setuid={user}", "--"),
                *(*begin, *follow),
            ]
        )
        self._programs.append(program)
        return program

    def kill(self) -> None:
        """Kill whatever still runs. Nothing of the container runs afterwards."""
        for program in self._programs:
            program.kill()
        self._programs.clear()

    def listing(self) -> dict[str, tuple[int, int, int]]:
        """Every path with its mode, size and time of change: what two looks differ in was written in between."""
        return {
            path.relative_to(self.root).as_posix(): (stat.st_mode, stat.st_size, stat.st_mtime_ns)
            for path in self.root.rglob("*")
            for stat in [path.lstat()]
        }


class Program:
    """A program in a container: PID 1 there, a descendant of ours here."""

    def __init__(self, command: Sequence[str]) -> None:
        # Of the two processes this is the outer one, which waits, and passes on the status but no signal.
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8"
        )
        self.stdout = Lines(_pipe(self._process.stdout))
        self.stderr = Lines(_pipe(self._process.stderr))

    @property
    def pid(self) -> int:
        """The program's number outside its namespace. Raises ProcessLookupError when it has ended."""
        outer = self._process.pid
        with contextlib.suppress(FileNotFoundError):
            if children := Path(f"/proc/{outer}/task/{outer}/children").read_text().split():
                return int(children[0])
        raise ProcessLookupError(f"nothing runs under process {outer}")

    def status(self) -> list[str]:
        """What the kernel says of the running program, line by line (proc_pid_status(5))."""
        return Path(f"/proc/{self.pid}/status").read_text().splitlines()

    def send_signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def wait(self, seconds: float) -> int:
        """The status the program ended with. Raises NotSeen when it has not ended in time."""
        try:
            status = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise NotSeen(f"still running after {seconds} s; it printed:\n{self.printed()}") from None
        self.stdout.end()
        self.stderr.end()
        return status

    def kill(self) -> None:
        """End it at once, if it still runs. Not by way of the outer process: who changes user escapes --kill-child."""
        try:
            os.kill(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            self._process.kill()
        self.wait(TOOL_SECONDS)

    def printed(self) -> str:
        return f"-- stdout --\n{self.stdout.text()}\n-- stderr --\n{self.stderr.text()}"


@dataclass(slots=True)
class Lines:
    """The lines of a pipe, read by a thread as they come, so that the writer never waits for us."""

    pipe: IO[str]
    _lines: list[str] = field(init=False, default_factory=list)
    _changed: threading.Condition = field(init=False, default_factory=threading.Condition)
    _ended: bool = field(init=False, default=False)
    _reader: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        self._reader = threading.Thread(target=self._read, name="reader of a program's lines", daemon=True)
        self._reader.start()

    def wait_for(self, wanted: Callable[[Sequence[str]], bool], seconds: float) -> list[str]:
        """All lines so far, as soon as they are as wanted. Raises NotSeen when time or the stream ends before."""
        with self._changed:
            self._changed.wait_for(lambda: wanted(self._lines) or self._ended, seconds)
            if not wanted(self._lines):
                raise NotSeen(
                    f"{'the stream ended' if self._ended else f'not within {seconds} s'}; seen:\n{self._text()}"
                )
            return list(self._lines)

    def wait_for_line(self, part: str, seconds: float) -> list[str]:
        """All lines so far, as soon as one holds `part`. Raises NotSeen."""
        return self.wait_for(lambda lines: any(part in line for line in lines), seconds)

    def text(self) -> str:
        with self._changed:
            return self._text()

    def end(self) -> None:
        """Take what is still in the pipe, once its writer has ended. Raises NotSeen when somebody else holds it open."""
        self._reader.join(TOOL_SECONDS)
        if self._reader.is_alive():
            raise NotSeen(f"the stream has no end; seen:\n{self.text()}")
        self.pipe.close()

    def _text(self) -> str:
        return "\n".join(self._lines)

    def _read(self) -> None:
        for line in self.pipe:
            with self._changed:
                self._lines.append(line.rstrip("\n"))
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()


def project_version() -> str:
    return cast("str", tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["version"])


def _check_the_machine() -> None:
    if missing := [tool for tool in TOOLS if shutil.which(tool) is None]:
        raise ImagesMissing(f"not installed: {', '.join(missing)} (apt-get install buildah debootstrap)")
    if os.geteuid() != 0:
        raise ImagesMissing("not root: debootstrap and the mounts of a container need it")
    try:
        _run("unshare", "--mount", "--pid", "--fork", "mount", "-t", "tmpfs", "tmpfs", "/mnt")
    except ToolFailed as failed:
        raise ImagesMissing(f"no namespaces of our own: {failed}") from failed


def _storage_driver(folder: Path) -> str:
    """overlay where the kernel and the folder allow it: vfs copies every layer whole, which takes ten times as long."""
    if given := os.environ.get("STORAGE_DRIVER"):
        return given
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        for layer in ("lower", "upper", "work", "merged"):
            (Path(scratch) / layer).mkdir()
        options = f"lowerdir={scratch}/lower,upperdir={scratch}/upper,workdir={scratch}/work"
        try:
            _run("unshare", "--mount", "mount", "-t", "overlay", "overlay", "-o", options, f"{scratch}/merged")
        except ToolFailed:
            return "vfs"
    return "overlay"


def _bootstrap(tarball: Path) -> None:
    """Write a minimal system of this machine's distribution, with Python and pip, as an archive."""
    suite, mirror = _distribution()
    with tempfile.TemporaryDirectory(dir=tarball.parent) as scratch:
        root = Path(scratch) / "root"
        try:
            _run(
                *("debootstrap", "--variant=minbase", f"--include={','.join(BASE_PACKAGES)}", suite, str(root), mirror),
                seconds=BUILD_SECONDS,
            )
        except ToolFailed as failed:
            raise ImagesMissing(f"no base: {failed}") from failed
        for pattern in BASE_WITHOUT:
            for path in root.glob(pattern):
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        written = Path(scratch) / "root.tar"
        _run("tar", "--create", "--numeric-owner", "--file", str(written), "--directory", str(root), ".")
        written.rename(tarball)


def _distribution() -> tuple[str, str]:
    """This machine's distribution and where its own apt takes it from: (suite, mirror). Raises ImagesMissing."""
    suite = _codename()
    listed = _run("apt-get", "indextargets", "--format", "$(RELEASE) $(COMPONENT) $(REPO_URI)", "Created-By: Packages")
    for release, component, mirror in (line.split(" ", 2) for line in listed.splitlines()):
        if (release, component) == (suite, "main"):
            return suite, mirror
    raise ImagesMissing(f"apt knows no source for {suite} main")


def _codename() -> str:
    for line in Path("/etc/os-release").read_text().splitlines():
        if line.startswith("VERSION_CODENAME="):
            return line.partition("=")[2].strip('"')
    raise ImagesMissing("/etc/os-release names no VERSION_CODENAME: debootstrap does not know what to make")


def _base_name() -> str:
    recipe = hashlib.sha256(repr((BASE_PACKAGES, BASE_WITHOUT)).encode()).hexdigest()[:12]
    return f"localhost/wellhead/base:{_codename()}-{recipe}"


@contextlib.contextmanager
def _pip_secrets() -> Iterator[list[str]]:
    """The options that give a build this machine's way to a package index, and leave nothing of it in the image."""
    listed = _run(sys.executable, "-m", "pip", "config", "list")
    options = {
        name.rpartition(".")[2]: str(ast.literal_eval(value))
        for name, _, value in (line.partition("=") for line in listed.splitlines())
        if name.partition(".")[0] in ("global", "install", ":env:")
    }
    secrets = {}
    if certificates := options.get("cert"):
        secrets["ca.pem"] = Path(certificates).read_text()
        options["cert"] = "/run/secrets/ca.pem"
    # A folder of this machine is not there inside the build.
    options = {name: value for name, value in options.items() if name == "cert" or not value.startswith("/")}
    secrets["pip.conf"] = "\n".join(
        ["[global]", *(f"{name} = {value.replace(chr(10), chr(10) + '  ')}" for name, value in options.items()), ""]
    )
    with tempfile.TemporaryDirectory() as folder:
        for name, text in secrets.items():
            (Path(folder) / name).write_text(text)
        yield [f"--secret=id={name},src={folder}/{name}" for name in secrets]


def _run(*command: str, environment: Mapping[str, str] | None = None, seconds: float = TOOL_SECONDS) -> str:
    """What the tool printed, without the last line's end. Raises ToolFailed."""
    try:
        done = subprocess.run(
            command,
            check=False,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            timeout=seconds,
        )
    except subprocess.TimeoutExpired as expired:
        raise ToolFailed(f"{' '.join(command)}: not done after {seconds} s") from expired
    if done.returncode:
        last = "\n".join((done.stdout + done.stderr).strip().splitlines()[-20:])
        raise ToolFailed(f"{' '.join(command)}: status {done.returncode}\n{last}")
    return done.stdout.strip()


def _path_of(tool: str) -> str:
    path = shutil.which(tool)
    if path is None:
        raise ImagesMissing(f"not installed: {tool}")
    return path


def _pipe(stream: IO[str] | None) -> IO[str]:
    assert stream is not None, "asked for with PIPE"
    return stream
