"""A build that finds no room says so, whatever the tool that met it says, and leaves nothing."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from modelhost.envs import BuildFailed, Cause, EnvironmentStore, Interpreter, Job, Language
from tests.full_disk import MIB, Disk, small_disk
from tests.integration.environments.workshop import left_on_disk, make_r_package, make_wheel, spec_of, write_index


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with small_disk(tmp_path / "disk", 96 * MIB) as disk:
        yield disk


def many_files(count: int) -> dict[str, str]:
    return {f"inst__extra__{number}": "x" * 50_000 + str(number) for number in range(count)}


@pytest.mark.parametrize("room", [1, 3, 8, 16])
@pytest.mark.parametrize("name", ["python2.7", "python3.6"])
def test_python(
    name: str, room: int, disk: Disk, interpreters: Mapping[str, Interpreter], offline: dict[str, str], model: Path
) -> None:
    environ = {**offline, "PIP_FIND_LINKS": str(model / "wheels")}
    store = EnvironmentStore(disk.path / "environments", cache=disk.path / "cache", environ=environ)
    make_wheel(model / "wheels", "large", "1.0", size=16 * MIB)
    spec = spec_of(store, interpreters[name], model, "large")
    with disk.filled(leave=room * MIB):
        with pytest.raises(BuildFailed) as caught:
            store.build(spec, None, Job())
        assert caught.value.cause is Cause.DISK_FULL, caught.value
        assert left_on_disk(store) == [".locks"] or left_on_disk(store) == []

    assert "large==1.0" in store.build(spec, None, Job()).lock


@pytest.mark.parametrize("room", [2, 6])
def test_r(
    room: int, disk: Disk, interpreters: Mapping[str, Interpreter], offline: dict[str, str], model: Path, tmp_path: Path
) -> None:
    r = next(one for one in interpreters.values() if one.language is Language.R and one.usable)
    packages = tmp_path / "cran" / "src" / "contrib"
    packages.mkdir(parents=True)
    make_r_package(packages, r, "large", "1.0", **many_files(200))
    write_index(packages, r)
    store = EnvironmentStore(
        disk.path / "environments", cache=disk.path / "cache", environ=offline,
        r_repositories=[(tmp_path / "cran").as_uri()],
    )  # fmt: skip
    spec = spec_of(store, r, model, "large")
    with disk.filled(leave=room * MIB):
        with pytest.raises(BuildFailed) as caught:
            store.build(spec, None, Job())
        assert caught.value.cause is Cause.DISK_FULL, caught.value

    assert store.build(spec, None, Job()).lock == ("large==1.0",)
