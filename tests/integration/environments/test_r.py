"""R libraries built by the real R, from a repository made here."""

import shutil
import subprocess
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from modelhost.envs import (
    BuildFailed,
    Cancelled,
    Cause,
    Environment,
    EnvironmentStore,
    Interpreter,
    Job,
    Language,
    Requirements,
    read_requirements,
)
from tests.integration.environments.workshop import (
    WAIT,
    Log,
    is_running,
    left_on_disk,
    make_r_package,
    run,
    spec_of,
    wait_until,
    write_index,
)


@pytest.fixture(scope="module")
def r(interpreters: Mapping[str, Interpreter]) -> Interpreter:
    found = [one for one in interpreters.values() if one.language is Language.R and one.usable]
    assert found, "these tests need an R that rpy2 can drive"
    return found[0]


@pytest.fixture(scope="module")
def repository(r: Interpreter, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository like CRAN's: `alpha` 1.2.0, 1.0.0 in its archive; `beta` needs it; and some that do not install."""
    root = tmp_path_factory.mktemp("cran")
    packages = root / "src" / "contrib"
    archive = packages / "Archive" / "alpha"
    archive.mkdir(parents=True)
    make_r_package(archive, r, "alpha", "1.0.0", "Imports: stats\n")
    make_r_package(packages, r, "alpha", "1.2.0", "Imports: stats\n")
    make_r_package(packages, r, "beta", "0.1-3", "Depends: R (>= 3.5)\nImports: alpha (>= 1.0.0),\n    methods\n")
    make_r_package(packages, r, "choosy", "2.0", "Imports: alpha (>= 1.1)\n")
    make_r_package(packages, r, "modern", "9.1", "Depends: R (>= 99.0)\n")
    (archive.parent / "modern").mkdir()
    make_r_package(archive.parent / "modern", r, "modern", "9.0", "Depends: R (>= 98.0)\n")
    make_r_package(archive.parent / "modern", r, "modern", "1.0")
    make_r_package(packages, r, "compiled", "1.0", src__code_c="#include <nosuch.h>\n")
    configure = "#!/bin/sh\necho 'Configuration failed because libnosuch was not found. Try installing:'\nexit 1\n"
    make_r_package(packages, r, "configured", "1.0", configure=configure)
    write_index(packages, r)
    return root


@pytest.fixture
def r_store(tmp_path: Path, cache: Path, offline: dict[str, str], repository: Path) -> EnvironmentStore:
    return EnvironmentStore(
        tmp_path / "environments", cache=cache, environ=offline, r_repositories=[repository.as_uri()]
    )


def build_r(store: EnvironmentStore, r: Interpreter, model: Path, *lines: str, log: Log | None = None) -> Environment:
    return store.build(spec_of(store, r, model, *lines), None, (log or Log()).job)


def test_an_r_library_holds_what_was_asked_for_and_what_that_needs(
    r: Interpreter, r_store: EnvironmentStore, model: Path
) -> None:
    (model / "DESCRIPTION").write_text("Package: model\nDepends: R (>= 3.5)\nImports: beta, stats (>= 3.0)\n")
    spec = r_store.specify(r, read_requirements(r, model, "DESCRIPTION"))
    log = Log()
    environment = r_store.build(spec, None, log.job)
    assert environment.lock == ("alpha==1.2.0", "beta==0.1-3")
    assert run(environment, "cat(beta::beta(), alpha::alpha())") == "0.1-3 1.2.0"
    assert log.said[:2] == [f"created an R {r.version} library", "installing 2 requirements"]
    assert "installing alpha 1.2.0 (1 of 2)" in log.text
    assert "* DONE (beta)" in log.text
    assert "locked 2 packages" in log.said
    assert r_store.find(spec.digest) == environment
    assert not (environment.path / ".build").exists()


def test_a_pinned_version_comes_from_the_archive_and_serves_those_that_need_the_package(
    r: Interpreter, r_store: EnvironmentStore, model: Path
) -> None:
    environment = build_r(r_store, r, model, "beta", "alpha==1.0.0")
    assert environment.lock == ("alpha==1.0.0", "beta==0.1-3")
    assert run(environment, "cat(alpha::alpha())") == "1.0.0"


def test_a_pin_of_the_current_version_needs_no_archive(r: Interpreter, r_store: EnvironmentStore, model: Path) -> None:
    assert build_r(r_store, r, model, "alpha==1.2.0").lock == ("alpha==1.2.0",)


def test_a_pin_to_an_older_version_helps_an_older_r(r: Interpreter, r_store: EnvironmentStore, model: Path) -> None:
    assert build_r(r_store, r, model, "modern==1.0").lock == ("modern==1.0",)


def test_a_pin_that_another_package_cannot_live_with_is_refused(
    r: Interpreter, r_store: EnvironmentStore, model: Path
) -> None:
    with pytest.raises(BuildFailed, match=r"alpha == 1\.0\.0 >= 1\.1 \(needed by choosy\) is not in") as raised:
        build_r(r_store, r, model, "alpha==1.0.0", "choosy")
    assert raised.value.cause is Cause.R_PACKAGE_NOT_FOUND


def test_several_repositories_are_searched_in_order(
    r: Interpreter, tmp_path: Path, cache: Path, offline: dict[str, str], repository: Path, model: Path
) -> None:
    packages = tmp_path / "own" / "src" / "contrib"
    packages.mkdir(parents=True)
    make_r_package(packages, r, "inhouse", "0.0.1", "Imports: alpha\n")
    write_index(packages, r)
    store = EnvironmentStore(
        tmp_path / "environments",
        cache=cache,
        environ=offline,
        r_repositories=[(tmp_path / "own").as_uri(), repository.as_uri()],
    )
    assert build_r(store, r, model, "inhouse", "alpha==1.0.0").lock == ("alpha==1.0.0", "inhouse==0.0.1")


def test_what_r_itself_has_counts_as_there_and_needs_no_repository(
    r: Interpreter, tmp_path: Path, cache: Path, offline: dict[str, str], model: Path
) -> None:
    store = EnvironmentStore(
        tmp_path / "environments", cache=cache, environ=offline, r_repositories=["file:///nonexistent"]
    )
    environment = build_r(store, r, model, "stats", "utils (>= 3.5)")
    assert environment.lock == ()
    assert build_r(store, r, model).lock == ()
    with pytest.raises(BuildFailed, match=r"stats >= 99 cannot be had: stats is part of R "):
        build_r(store, r, model, "stats (>= 99)")


def test_no_other_library_of_the_host_gets_in(
    r: Interpreter, tmp_path: Path, cache: Path, offline: dict[str, str], repository: Path, model: Path
) -> None:
    site, source = tmp_path / "site", tmp_path / "source"
    site.mkdir()
    source.mkdir()
    make_r_package(source, r, "leak", "1.0")
    make_r_package(source, r, "alpha", "1.1.9")
    for archive in source.glob("*.tar.gz"):
        subprocess.run([r.path, "CMD", "INSTALL", "-l", site, archive], check=True, capture_output=True)
    home = Path(offline["HOME"])
    (home / ".Renviron").write_text(f"R_LIBS={site}\nR_LIBS_SITE={site}\nR_LIBS_USER={site}\n")
    (home / ".Rprofile").write_text("cat('a profile was read\\n'); quit(status = 3)\n")
    environ = {**offline, "R_LIBS": str(site), "R_LIBS_SITE": str(site), "R_PROFILE_USER": str(home / ".Rprofile")}
    store = EnvironmentStore(
        tmp_path / "environments", cache=cache, environ=environ, r_repositories=[repository.as_uri()]
    )
    log = Log()
    environment = build_r(store, r, model, "beta", log=log)
    assert environment.lock == ("alpha==1.2.0", "beta==0.1-3")
    assert "a profile was read" not in log.text
    with pytest.raises(BuildFailed, match="leak is in none of the repositories"):
        build_r(store, r, model, "leak")
    libraries = run(environment, "cat(normalizePath(.libPaths()), sep = '\\n')").splitlines()
    base = run(environment, "cat(normalizePath(.Library))")
    assert libraries == [str(environment.library.resolve()), base]


@pytest.mark.parametrize(
    ("line", "cause", "message"),
    [
        ("nosuch", Cause.R_PACKAGE_NOT_FOUND, r"^nosuch is in none of the repositories$"),
        ("alpha==7.7", Cause.R_PACKAGE_NOT_FOUND, r"^alpha == 7\.7 is not in .*the newest version there is 1\.2\.0$"),
        ("alpha (>= 2)", Cause.R_PACKAGE_NOT_FOUND, r"^alpha >= 2 is not in the repositories"),
        ("modern", Cause.R_VERSION, r"^modern is not available for R .*9\.1, needs R >= 99\.0$"),
        ("modern==9.0", Cause.R_VERSION, r"^modern 9\.0 needs R >= 98\.0, this is R "),
        ("compiled", Cause.LIBRARY_UNNAMED, r"^compiled 1\.0 cannot be installed: .*nosuch\.h: No such file"),
        ("configured", Cause.LIBRARY_UNNAMED, r"because libnosuch was not found"),
    ],
)
def test_an_r_package_that_cannot_be_had_is_explained(
    line: str, cause: Cause, message: str, r: Interpreter, r_store: EnvironmentStore, model: Path
) -> None:
    with pytest.raises(BuildFailed, match=message) as raised:
        build_r(r_store, r, model, line)
    assert raised.value.cause is cause
    assert left_on_disk(r_store) == []


@pytest.mark.parametrize("url", ["file:///nonexistent", "http://127.0.0.1:9"])
def test_a_repository_that_cannot_be_reached_is_the_hosts_matter(
    url: str, r: Interpreter, tmp_path: Path, cache: Path, offline: dict[str, str], repository: Path, model: Path
) -> None:
    store = EnvironmentStore(
        tmp_path / "environments", cache=cache, environ=offline, r_repositories=[repository.as_uri(), url]
    )
    with pytest.raises(
        BuildFailed, match=r"^a package repository cannot be read: .*(/nonexistent|127\.0\.0\.1:9)"
    ) as raised:
        build_r(store, r, model, "alpha")
    assert raised.value.cause is Cause.R_INDEX_UNREACHABLE


def test_a_cancelled_r_build_leaves_nothing(
    r: Interpreter, tmp_path: Path, cache: Path, offline: dict[str, str], model: Path
) -> None:
    packages = tmp_path / "own" / "src" / "contrib"
    packages.mkdir(parents=True)
    running = tmp_path / "running"
    make_r_package(packages, r, "slow", "1.0", configure=f"#!/bin/sh\necho $$ >'{running}'\nexec sleep 600\n")
    write_index(packages, r)
    store = EnvironmentStore(
        tmp_path / "environments", cache=cache, environ=offline, r_repositories=[(tmp_path / "own").as_uri()]
    )
    log = Log()
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(build_r, store, r, model, "slow", log=log)
        wait_until(lambda: running.exists() and running.read_text().endswith("\n"))
        log.job.cancel()
        with pytest.raises(Cancelled):
            future.result(WAIT)
    assert not is_running(int(running.read_text()))
    assert left_on_disk(store) == []


def test_requirements_that_are_no_packages_are_refused(r: Interpreter, r_store: EnvironmentStore) -> None:
    spec = r_store.specify(r, Requirements(Language.R, ("alpha; rm",)))
    with pytest.raises(BuildFailed, match="not a list of R packages"):
        r_store.build(spec, None, Job())


# ---- from a lock


def test_a_library_is_built_again_from_its_lock_though_the_repository_has_moved_on(
    r: Interpreter, tmp_path: Path, cache: Path, offline: dict[str, str], repository: Path, model: Path
) -> None:
    moved = tmp_path / "cran"
    shutil.copytree(repository, moved)
    store = EnvironmentStore(tmp_path / "environments", cache=cache, environ=offline, r_repositories=[moved.as_uri()])
    spec = spec_of(store, r, model, "beta")
    before = store.build(spec, None, Log().job)
    assert before.lock == ("alpha==1.2.0", "beta==0.1-3")
    store.remove(spec.digest)
    packages = moved / "src" / "contrib"
    (packages / "alpha_1.2.0.tar.gz").rename(packages / "Archive" / "alpha" / "alpha_1.2.0.tar.gz")
    make_r_package(packages, r, "alpha", "2.0.0", "Imports: stats\n")
    write_index(packages, r)
    log = Log()

    again = store.build(spec, None, log.job, before.lock)

    assert (again.lock, again.digest, again.path) == (before.lock, before.digest, before.path)
    assert run(again, "cat(beta::beta(), alpha::alpha())") == "0.1-3 1.2.0"
    assert "installing the 2 packages that were locked" in log.said
    store.remove(spec.digest)
    (packages / "Archive" / "alpha" / "alpha_1.2.0.tar.gz").unlink()
    with pytest.raises(BuildFailed, match=r"alpha 1\.2\.0, which was locked, is in none of the") as caught:
        store.build(spec, None, Log().job, before.lock)
    assert caught.value.cause is Cause.LOCK_UNMET
    assert store.build(spec, None, Log().job).lock == ("alpha==2.0.0", "beta==0.1-3")


def test_a_lock_is_followed_with_the_repositories_that_the_server_has_now(
    r: Interpreter, r_store: EnvironmentStore, model: Path, tmp_path: Path
) -> None:
    spec = replace(spec_of(r_store, r, model, "alpha"), repositories=("http://127.0.0.1:9",))

    environment = r_store.build(spec, None, Log().job, ("alpha==1.0.0",))

    assert environment.lock == ("alpha==1.0.0",)
    assert environment.digest == spec.digest_with(("alpha==1.0.0",))
