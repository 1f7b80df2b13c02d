"""How a packaged router gets into an image: the element's own scripts, with the image's own apt, on packages made here.

The router is a stand-in: what is tested is the way it takes, and what the build says when there is no way.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import http.server
import os
import pathlib
import shutil
import subprocess
import threading
import typing

import pytest

from testbed import image as building
from tests.image import material
from tests.support import helpers

ELEMENT = helpers.ROOT / "elements/qpid-dispatch-router"
ARMOURED, BINARY = "key.asc", "key.gpg"
_IN_ROOT = """
set -e
mount --bind /dev "$1/dev"
exec chroot "$@"
"""

Tool = typing.Callable[..., None]


def run(*command: str | pathlib.Path, **options: typing.Any) -> str:
    words = [str(word) for word in command]
    result = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, **options)
    said = str(result.stdout)
    assert result.returncode == 0, said
    return said


# -- packages and archives -------------------------------------------------------------------------------------------


def package(directory: pathlib.Path, name: str, files: dict[str, bytes], depends: str = "") -> pathlib.Path:
    """Build a .deb; return its path."""
    content = directory / f"{name}.content"
    for path, data in files.items():
        (content / path).parent.mkdir(parents=True, exist_ok=True)
        (content / path).write_bytes(data)
        (content / path).chmod(0o755)
    fields = {
        "Package": name, "Version": "1.19.0-1", "Architecture": "amd64", "Maintainer": "Nobody <nobody@example.com>",
        "Depends": depends, "Description": "stand-in of a test",
    }  # fmt: skip
    (content / "DEBIAN").mkdir(parents=True)
    (content / "DEBIAN/control").write_text("".join(f"{k}: {v}\n" for k, v in fields.items() if v))
    made = directory / f"{name}.deb"
    run("dpkg-deb", "--root-owner-group", "--build", content, made)
    shutil.rmtree(content)
    return made


def router(directory: pathlib.Path, depends: str = "") -> pathlib.Path:
    directory.mkdir(exist_ok=True)
    return package(directory, "qdrouterd", {"usr/sbin/qdrouterd": b"#!/bin/sh\nexec sleep infinity\n"}, depends)


def tools(directory: pathlib.Path) -> None:
    for name in ("qdmanage", "qdstat"):
        package(directory, name, {f"usr/bin/{name}": b"#!/bin/sh\n"})


def index(archive: pathlib.Path) -> None:
    """Turn a directory of packages into an unsigned archive for apt."""
    entries = []
    for path in sorted(archive.glob("*.deb")):
        data = path.read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        more = f"Filename: ./{path.name}\nSize: {len(data)}\nSHA256: {digest}\n"
        entries.append(run("dpkg-deb", "--field", path) + more)
    packages = "\n".join(entries).encode()
    (archive / "Packages").write_bytes(packages)
    listed = f" {hashlib.sha256(packages).hexdigest()} {len(packages)} Packages\n"
    release = f"Date: {run('date', '--utc', '--rfc-email')}SHA256:\n{listed}"
    (archive / "Release").write_text(release)


def sign(archive: pathlib.Path, home: pathlib.Path) -> None:
    """Sign an archive with a new key, and put the key beside it."""
    home.mkdir(mode=0o700)
    gpg = ["gpg", "--batch", "--quiet", "--homedir", str(home), "--pinentry-mode", "loopback", "--passphrase", ""]
    try:
        run(*gpg, "--quick-generate-key", "nobody@example.com", "ed25519", "sign", "never")
        run(*gpg, "--output", archive / "InRelease", "--clearsign", archive / "Release")
        run(*gpg, "--output", archive / ARMOURED, "--armor", "--export")
        run(*gpg, "--output", archive / BINARY, "--export")
    finally:
        subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=False)


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """An archive with a router and its tools, signed, with its key."""
    base = tmp_path_factory.mktemp("signed")
    router(base / "archive")
    tools(base / "archive")
    index(base / "archive")
    sign(base / "archive", base / "gnupg")
    return base / "archive"


@contextlib.contextmanager
def served(archive: pathlib.Path) -> typing.Iterator[str]:
    """Serve a directory over HTTP; yield the arguments of a ``deb`` line."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(archive))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/ ./"
        finally:
            server.shutdown()
            thread.join()


# -- the element -----------------------------------------------------------------------------------------------------


@pytest.fixture
def root(image: pathlib.Path) -> typing.Iterator[pathlib.Path]:
    """The image's tree, to be written to, with no source of packages."""
    with building.scratch("om-image-router") as work:
        for name in ("upper", "work", "root"):
            (work / name).mkdir()
        options = f"lowerdir={image}/tree,upperdir={work}/upper,workdir={work}/work"
        run("mount", "-t", "overlay", "overlay", "-o", options, work / "root")
        for path in (work / "root/etc/apt/sources.list.d").iterdir():
            path.unlink()
        yield work / "root"


def inside(root: pathlib.Path, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    enter = ["unshare", "--mount", "--pid", "--fork", "--kill-child", f"--mount-proc={root}/proc"]
    variables = {"PATH": "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", **environment}
    return subprocess.run(
        [*enter, "bash", "-c", _IN_ROOT, "bash", str(root), *command],
        env=variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
        check=False,
    )


def build(root: pathlib.Path, **variables: str) -> str:
    """Run the element's scripts like disk-image-create; return the output of a failed one, otherwise ''."""
    hooks = root / "tmp/in_target.d"
    shutil.copytree(ELEMENT, hooks)
    given = {"DISTRO_NAME": "debian", "DIB_RELEASE": material.RELEASE, **variables}
    source = f". {ELEMENT}/environment.d/60-qpid-dispatch-router.bash && env -0"
    # The variables that the element exports are what the scripts get.
    environment = dict(
        item.partition("=")[::2]
        for item in run("bash", "-c", source, env={"PATH": os.defpath, **given}).split("\0")
        if item.startswith(("DIB_", "DISTRO_"))
    )
    script = "60-qpid-dispatch-router"
    first = subprocess.run(
        [hooks / "extra-data.d" / script],
        env={"PATH": os.defpath, "TMP_HOOKS_PATH": str(hooks), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if first.returncode:
        return first.stdout
    for phase in ("pre-install.d", "install.d", "post-install.d"):
        result = inside(root, f"/tmp/in_target.d/{phase}/{script}", **environment)
        if result.returncode:
            return result.stdout
    return ""


def check(root: pathlib.Path) -> None:
    """Check that the router is installed and disabled, and that its package source is removed."""
    assert os.access(root / "usr/sbin/qdrouterd", os.X_OK)
    assert inside(root, "systemctl", "is-enabled", "qdrouterd").stdout == "disabled\n"
    assert inside(root, "id", "-Gn", "qdrouterd").stdout == "qdrouterd\n"
    drop_in = (root / "usr/lib/systemd/system/qdrouterd.service.d/10-qpid-dispatch-router.conf").read_text()
    assert "\nExecStart=/usr/sbin/qdrouterd -c /etc/qpid-dispatch/qdrouterd.json\n" in drop_in
    assert [path.name for path in (root / "etc/apt").rglob("*dispatch-router*")] == []


def refusal(said: str) -> str:
    """Return the element's error, which must be the only one and the last line."""
    sentences = [line for line in said.splitlines() if line.startswith("ERROR: qpid-dispatch-router: ")]
    assert len(sentences) == 1 and said.endswith(sentences[0] + "\n"), said
    return sentences[0]


# -- ways to a router ------------------------------------------------------------------------------------------------


def test_from_the_distribution(root: pathlib.Path, tmp_path: pathlib.Path) -> None:
    router(tmp_path)
    index(tmp_path)
    with served(tmp_path) as where:
        (root / "etc/apt/sources.list.d/default.list").write_text(f"deb [trusted=yes] {where}\n")
        assert inside(root, "apt-get", "update").returncode == 0
        assert build(root) == ""
    check(root)


def test_from_a_directory(root: pathlib.Path, tmp_path: pathlib.Path) -> None:
    router(tmp_path)
    tools(tmp_path)
    assert build(root, DIB_DISPATCH_ROUTER_PACKAGES_DIR=str(tmp_path)) == ""
    check(root)
    assert (root / "usr/bin/qdstat").exists()


@pytest.mark.parametrize("key", [ARMOURED, BINARY])
def test_from_a_signed_repository(root: pathlib.Path, signed: pathlib.Path, key: str) -> None:
    with served(signed) as where:
        assert build(root, DIB_DISPATCH_ROUTER_REPO=where, DIB_DISPATCH_ROUTER_REPO_KEY=str(signed / key)) == ""
    check(root)
    assert (root / "usr/bin/qdstat").exists()


# -- and none --------------------------------------------------------------------------------------------------------


def test_no_router_anywhere(root: pathlib.Path) -> None:
    said = refusal(build(root))
    assert f"no router: debian {material.RELEASE} has no qdrouterd." in said
    assert "DIB_DISPATCH_ROUTER_PACKAGES_DIR" in said


def test_a_repository_signed_with_another_key(root: pathlib.Path, signed: pathlib.Path, tmp_path: pathlib.Path) -> None:
    router(tmp_path / "archive")
    index(tmp_path / "archive")
    sign(tmp_path / "archive", tmp_path / "gnupg")
    key = str(tmp_path / "archive" / ARMOURED)
    with served(signed) as where:
        said = refusal(build(root, DIB_DISPATCH_ROUTER_REPO=where, DIB_DISPATCH_ROUTER_REPO_KEY=key))
    assert "is not signed with the key in DIB_DISPATCH_ROUTER_REPO_KEY" in said
    assert not (root / "usr/sbin/qdrouterd").exists()


def test_a_repository_that_does_not_answer(root: pathlib.Path, signed: pathlib.Path) -> None:
    with served(signed) as where:
        pass
    key = str(signed / ARMOURED)
    said = refusal(build(root, DIB_DISPATCH_ROUTER_REPO=where, DIB_DISPATCH_ROUTER_REPO_KEY=key))
    assert "does not answer" in said


def test_a_repository_without_a_key(root: pathlib.Path) -> None:
    said = refusal(build(root, DIB_DISPATCH_ROUTER_REPO="http://127.0.0.1:1/ ./"))
    assert "Set DIB_DISPATCH_ROUTER_REPO_KEY" in said


def test_a_directory_without_packages(root: pathlib.Path, tmp_path: pathlib.Path) -> None:
    assert "contains no .deb and no .rpm file." in refusal(build(root, DIB_DISPATCH_ROUTER_PACKAGES_DIR=str(tmp_path)))


def test_a_directory_without_what_the_router_depends_on(root: pathlib.Path, tmp_path: pathlib.Path) -> None:
    router(tmp_path, depends="libqpid-proton99")
    said = refusal(build(root, DIB_DISPATCH_ROUTER_PACKAGES_DIR=str(tmp_path)))
    assert "Add their dependencies to the directory" in said


def test_an_engine_that_is_none(root: pathlib.Path) -> None:
    assert "use qdrouterd, skrouterd or embedded" in refusal(build(root, DIB_DISPATCH_ROUTER_ENGINE="qpidd"))


def test_a_router_on_debians_proton_is_refused(image: pathlib.Path, root: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """Build a router linked with libqpid-proton. In the image it finds Debian's own, or a stand-in: no Cyrus SASL."""
    found = [path.name for path in (image / "tree/usr/lib").glob("*/libqpid-proton-core.so.??")]
    name = found[0] if found else "libqpid-proton-core.so.10"
    (tmp_path / "empty.c").write_text("")
    (tmp_path / "main.c").write_text("int main(void) { return 0; }\n")
    run("gcc", "-shared", f"-Wl,-soname,{name}", "-o", name, "empty.c", cwd=tmp_path)
    run("gcc", "-Wl,--no-as-needed", "-o", "qdrouterd", "main.c", name, cwd=tmp_path)
    files = {"usr/sbin/qdrouterd": (tmp_path / "qdrouterd").read_bytes()}
    if not found:  # an image without the services' AMQP 1.0 has no proton of Debian's
        files[f"usr/lib/{name}"] = (tmp_path / name).read_bytes()
    package(tmp_path, "qdrouterd", files)
    said = refusal(build(root, DIB_DISPATCH_ROUTER_PACKAGES_DIR=str(tmp_path)))
    assert "uses a libqpid-proton without Cyrus SASL" in said
