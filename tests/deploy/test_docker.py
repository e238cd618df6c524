"""deploy/docker: what a linter says of the Dockerfile, what it says of us, and the health check against servers."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import trustme
from inferno import __version__

from tests.deploy.files import DEPLOY, PAGE, ROOT, dockerfile, image_environment, settings_of
from tests.fakes import FakeEngine
from tests.server.conftest import Live

Serve = Callable[..., Live]
#: The instructions of the image itself, after the stage that builds.
FINAL = dockerfile()[max(i for i, (word, _) in enumerate(dockerfile()) if word == "FROM") :]


def final(instruction: str) -> str:
    (found,) = [rest for word, rest in FINAL if word == instruction]
    return found


def test_the_linter_has_nothing_to_say() -> None:
    linter = Path(sys.executable).with_name("hadolint")
    result = subprocess.run([linter, DEPLOY / "docker" / "Dockerfile"], capture_output=True, text=True)
    assert (result.stdout, result.returncode) == ("", 0)


def test_it_runs_as_nobody_in_particular() -> None:
    user, group = final("USER").split(":")
    assert int(user) == int(group) >= 10_000  # no user of a host
    assert f"--uid {user} " in final("RUN")
    assert [word for word, _ in FINAL].index("USER") < [word for word, _ in FINAL].index("ENTRYPOINT")


def test_its_environment_is_settings() -> None:
    settings = settings_of(image_environment())
    assert settings.server.host == "0.0.0.0"
    assert final("EXPOSE") == str(settings.server.port)
    assert image_environment()["HOME"] == str(settings.data_dir)  # also for a user whom the image does not know
    assert json.loads(final("VOLUME")) == [str(settings.data_dir), str(settings.models.dir)]


def test_what_it_copies_is_in_the_context() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert lines[1] == "*"  # all that is not named below it
    names = [line.removeprefix("!") for line in lines if line.startswith("!")]
    assert all((ROOT / name).exists() for name in names)
    copied = [rest.split()[0] for word, rest in FINAL if word == "COPY" and "--from" not in rest]
    assert set(copied) <= set(names)
    assert not any(name.startswith(("deploy/compose", ".git")) for name in names)


def test_it_builds_with_options_that_there_are() -> None:
    given = {name for word, rest in dockerfile() if word == "RUN" for name in re.findall(r"define\.(\w+)=", rest)}
    assert {"INFERNO_NATIVE", "INFERNO_PORTABLE", "INFERNO_CUDA"} == given
    options = (ROOT / "CMakeLists.txt").read_text()
    assert all(f"option({name} " in options for name in given)
    assert given <= {rest.partition("=")[0] for word, rest in dockerfile() if word == "ARG"}


def test_the_version_is_ours() -> None:
    assert ("ARG", f"VERSION={__version__}") in FINAL


def test_the_page_names_the_bases() -> None:
    (base,) = {rest.partition("=")[2] for word, rest in dockerfile() if word == "ARG" and "_BASE" in rest}
    assert f"`{base}`" in PAGE


# ---- the health check ----


def check_health(port: int, **environ: str) -> subprocess.CompletedProcess[str]:
    (script,) = [rest.split()[0] for word, rest in FINAL if word == "COPY" and rest.endswith("healthcheck.py")]
    assert "/opt/inferno/healthcheck.py" in final("HEALTHCHECK")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("INFERNO_")}
    env = {**inherited, "XDG_CONFIG_HOME": "/nonexistent", "INFERNO_PORT": str(port), **environ}
    return subprocess.run([sys.executable, ROOT / script], env=env, capture_output=True, text=True)


def test_a_server_that_is_ready(serve: Serve, engine: FakeEngine) -> None:
    live = serve(engine)
    host = image_environment()["INFERNO_HOST"]
    result = check_health(live.port, INFERNO_HOST=host, http_proxy="http://127.0.0.1:9")
    assert (result.stderr, result.returncode) == ("", 0)


def test_a_server_that_drains(serve: Serve, engine: FakeEngine) -> None:
    live = serve(engine)
    live.services.pool.begin_closing()
    result = check_health(live.port)
    assert (result.stderr, result.returncode) == ("not ready: HTTP Error 503: Service Unavailable\n", 1)


def test_no_server(serve: Serve, engine: FakeEngine) -> None:
    live = serve(engine)
    live.stop()
    assert check_health(live.port).returncode == 1


def test_a_server_with_a_certificate_for_another_name(serve: Serve, engine: FakeEngine, tmp_path: Path) -> None:
    issued = trustme.CA().issue_cert("models.example")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    issued.private_key_pem.write_to_path(tmp_path / "key.pem")
    tls = {"INFERNO_SERVER_TLS_CERT": str(tmp_path / "cert.pem"), "INFERNO_SERVER_TLS_KEY": str(tmp_path / "key.pem")}
    live = serve(engine, server__tls_cert=tmp_path / "cert.pem", server__tls_key=tmp_path / "key.pem")
    assert check_health(live.port, **tls).returncode == 0
