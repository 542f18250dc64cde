"""The house as docs/architecture.md draws it: what may import what, what lies where, and what a wheel of it holds."""

import ast
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PARTS = {
    "proto": ["v1", "inference"],
    "server": ["server"],
    "envs": ["envs"],
    "runtimes": ["runtimes"],
    "clients": ["client", "cli"],
}
MOST_LINES = 500

# What each part of the server may import of ModelHost, besides itself, the stubs (v1) and TERMS.
TERMS = {"catalogue", "errors", "identities", "private", "resources", "text"}
SERVER = {
    "errors": set(),
    "catalogue": {"envs"},
    "resources": set(),
    "identities": set(),
    "private": set(),
    "text": set(),
    "vault": set(),
    "store": set(),
    "sources": {"envs"},
    "serving": {"envs", "runtimes"},
    "access": {"store", "vault"},
    "rekeying": {"access", "control", "store", "vault"},
    "control": {"serving", "sources", "store", "vault", "envs", "runtimes"},
    "api": {"inference", "control", "access", "serving", "sources", "store", "vault", "rekeying", "envs"},
    "tls": set(),
    "transport": {"tls"},
    "doors": {"api", "tls", "transport"},
    "observing": {"serving"},
    "statedir": {"envs"},
    "config": {"envs", "sources", "transport"},
    "app": {
        "inference",
        "tls",
        "doors",
        "api",
        "control",
        "access",
        "serving",
        "sources",
        "store",
        "vault",
        "envs",
        "config",
        "statedir",
        "observing",
        "rekeying",
    },
    "commands": {"app", "config", "statedir", "store", "envs", "client", "cli", "observing", "transport"},
    "backup": {"store", "statedir", "vault", "config", "envs"},
    "certs": set(),
}


def source_files(root: str = "*") -> list[Path]:
    """Every Python file that was written by people."""
    found = sorted(ROOT.glob(f"{root}/modelhost/**/*.py"))
    assert found
    return [path for path in found if not path.stem.endswith(("_pb2", "_pb2_grpc"))]


def imports_of(text: str) -> Iterator[str]:
    """Full names of what a module imports, wherever in it; a relative import as it is, with its dots."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield from (f"{module}.{alias.name}".replace("..", ".") for alias in node.names)


def imports(path: Path) -> list[str]:
    return list(imports_of(path.read_text()))


def place(name: str) -> str:
    """Which part of ModelHost a module is of: `envs`, `client`, in the server `control` or `errors`; "" for others."""
    match name.split("."):
        case ["modelhost", "server", part, *_]:
            return part
        case ["modelhost", part, *_]:
            return part
        case _:
            return ""


def name_of(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[parts.index("modelhost") :])


# ---- what imports what


def test_imports_are_found_wherever_they_are() -> None:
    text = "import a.b, c\nfrom d.e import f, g\ndef h():\n    from modelhost.server import app\n    import i"

    assert sorted(imports_of(text)) == ["a.b", "c", "d.e.f", "d.e.g", "i", "modelhost.server.app"]
    assert place("modelhost.server.app") == "app"
    assert place("modelhost.envs.process") == "envs"
    assert place("grpc") == ""


@pytest.mark.parametrize("part", SERVER)
def test_a_part_of_the_server_imports_only_what_lies_below_it(part: str) -> None:
    allowed = {part, "v1", *TERMS, *SERVER[part]}
    files = [path for path in source_files("server") if place(name_of(path)) == part]
    assert files

    wrong = [f"{path}: {name}" for path in files for name in imports(path) if place(name) not in {"", *allowed}]

    assert wrong == []


def test_every_module_of_the_server_is_in_a_part_that_has_rules() -> None:
    parts = {place(name_of(path)) for path in source_files("server") if path.parent.name != "modelhost"}

    assert parts - {"__init__"} == set(SERVER)


def test_the_directions_make_no_circle() -> None:
    below: dict[str, set[str]] = {part: lower & set(SERVER) for part, lower in SERVER.items()}
    while free := {part for part, lower in below.items() if not lower}:
        below = {part: lower - free for part, lower in below.items() if part not in free}

    assert below == {}


def test_environments_know_nothing_of_the_server() -> None:
    wrong = [
        f"{path}: {name}" for path in source_files("envs") for name in imports(path) if place(name) not in {"", "envs"}
    ]

    assert wrong == []


def test_what_runs_inside_a_models_interpreter_imports_the_standard_library_alone() -> None:
    allowed = {"r_worker": {"rpy2", "r_tensors", "r_values"}, "r_values": {"rpy2"}}
    allowed |= {"r_tensors": {"rpy2", "python_tensors", "python_values", "r_values"}}
    allowed |= {"python_worker": {"python_capture", "python_items", "python_tensors", "python_values"}}
    allowed |= {name: {"python_values"} for name in ("python_capture", "python_items", "python_tensors")}

    wrong = [
        f"{path}: {name}"
        for path in source_files("runtimes")
        for name in imports(path)
        if name.split(".")[0] not in {*sys.stdlib_module_names, *allowed.get(path.stem, ())}
    ]

    assert wrong == []


def test_clients_import_the_stubs_and_themselves_alone() -> None:
    allowed = {"client": {"", "client", "v1"}, "cli": {"", "cli", "client", "v1"}}

    wrong = [
        f"{path}: {name}"
        for path in source_files("clients")
        for name in imports(path)
        if place(name) not in allowed[place(name_of(path))]
    ]

    assert wrong == []


def test_the_servers_verbs_alone_know_the_client() -> None:
    users = {
        path.name
        for root in ("server", "envs", "runtimes")
        for path in source_files(root)
        for name in imports(path)
        if place(name) in {"client", "cli"}
    }

    assert users == {"commands.py"}


def test_grpc_is_known_to_doors_alone() -> None:
    users = {
        place(name_of(path))
        for root in ("server", "envs", "runtimes")
        for path in source_files(root)
        for name in imports(path)
        if name.split(".")[0] == "grpc" or "_pb2_grpc" in name
    }

    assert users == {"doors"}


def test_prometheus_is_known_to_what_observes_alone() -> None:
    users = {
        place(name_of(path))
        for root in PARTS
        for path in source_files(root)
        for name in imports(path)
        if name.split(".")[0] == "prometheus_client"
    }

    assert users == {"observing"}


def test_no_import_is_relative() -> None:
    wrong = [f"{path}: {name}" for path in source_files() for name in imports(path) if name.startswith(".")]

    assert wrong == []


# ---- what lies where


@pytest.mark.parametrize("root", PARTS)
def test_a_source_root_holds_parts_of_a_namespace_and_no_package(root: str) -> None:
    namespace = ROOT / root / "modelhost"

    assert not (namespace / "__init__.py").exists()
    for part in PARTS[root]:
        assert (namespace / part / "__init__.py").exists()
    assert {path.name for path in namespace.iterdir() if path.suffix == ".py"} == set()


def test_modules_fit_in_the_head() -> None:
    long = {str(path): count for path in source_files() if (count := len(path.read_text().splitlines())) > MOST_LINES}

    assert long == {}


# ---- what is shipped


def test_a_wheel_holds_every_file_of_all_five_parts(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, timeout=60)

    (wheel,) = tmp_path.glob("*.whl")
    held = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("modelhost/")}
    wanted = {
        str(path.relative_to(ROOT / root))
        for root in PARTS
        for path in (ROOT / root / "modelhost").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert held == wanted
    assert {Path(name).suffix for name in held} >= {".py", ".pyi", ".proto", ".R", ".md", ".typed"}
