"""Build an environment for Python: virtualenv or venv, then pip, then a lock of what is in it.

With a lock to follow, pip chooses nothing: it installs those packages and no others.

Python before 3.12 gets a virtualenv by virtualenv 20.21, the last series that makes them for 2.7 and 3.6, with the pip,
setuptools and wheel it carries: nothing is downloaded for it. Newer Pythons are unknown to that series and make their
own with `venv`. Both link to the interpreter instead of copying it (2.7 has to be copied): the standard library stays
where it is either way, so a copy would be no more independent, only larger. No activation scripts: nobody types
here, and CVE-2024-53899 lives in them.
"""

import json
import os
import shlex
import sys
from pathlib import Path

from modelhost.envs import relock
from modelhost.envs.failures import explain_creation, explain_pip
from modelhost.envs.files import copy_files, has_no_room, remove_tree
from modelhost.envs.plan import INSTALL_SECONDS, Plan
from modelhost.envs.process import CommandFailed, Job
from modelhost.envs.variables import pip_variables

CREATE_SECONDS = 5 * 60.0
QUERY_SECONDS = 5 * 60.0  # pip freeze and pip check, on a slow disk
FIRST_WITH_OWN_VENV = (3, 12)


def build_python(plan: Plan, job: Job) -> tuple[str, ...]:
    """Make the environment and install what is asked for; return the lock. Raises `BuildFailed`, `Cancelled`."""
    interpreter = plan.spec.interpreter
    job.say(f"creating a Python {interpreter.version} environment")
    try:
        _create(plan, job)
    except CommandFailed as error:
        raise explain_creation(error, interpreter) from error
    asked = [line for line in plan.spec.requirements if not line.startswith("-")]
    try:
        if plan.lock:
            _install_locked(plan, job)
        elif asked:
            job.say(f"installing {plan.count(asked)}")
            _install(plan, job, plan.spec.requirements, constrained=True)
            _check(plan, job)
        lock = _lock(plan, job)
    except CommandFailed as error:
        raise explain_pip(error, interpreter) from error
    return plan.followed(lock)


def _create(plan: Plan, job: Job) -> None:
    interpreter = plan.spec.interpreter
    seeds = plan.cache / "virtualenv"
    if interpreter.version_info >= FIRST_WITH_OWN_VENV:
        argv = [str(interpreter.path), "-I", "-m", "venv", str(plan.folder)]
    else:
        argv = [
            sys.executable, "-m", "virtualenv", "--python", str(interpreter.path),
            "--app-data", str(seeds),
            "--no-download", "--no-periodic-update", "--pip", "embed", "--setuptools", "embed", "--wheel", "embed",
            "--activators", "", "--no-vcs-ignore", str(plan.folder),
        ]  # fmt: skip
    # A virtualenv.ini of whoever runs the server has no say.
    variables = {**plan.variables, "VIRTUALENV_CONFIG_FILE": os.devnull}
    try:
        job.run(argv, env=variables, cwd=plan.scratch, timeout=CREATE_SECONDS)
    except CommandFailed:
        # virtualenv unpacks its pip there. Where it was killed meanwhile, or found no room, it takes what it left for
        # whole, and fails with that from then on.
        remove_tree(seeds)
        if has_no_room(plan.folder):
            raise
        job.run(argv, env=variables, cwd=plan.scratch, timeout=CREATE_SECONDS)
    for script in [*plan.folder.glob("bin/activate*"), *plan.folder.glob("bin/Activate.ps1")]:
        script.unlink()


def _install_locked(plan: Plan, job: Job) -> None:
    """Install what was locked: the model's own packages from its files, then what is not there yet, by version."""
    requirements = plan.spec.requirements
    options = relock.options(requirements)
    job.say(f"installing the {len(plan.lock)} packages that were locked")
    if own := relock.own_packages(requirements):
        _install(plan, job, (*options, *own), "--no-deps")
    there = _lock(plan, job)
    if missing := [line for line in plan.lock if line not in there]:
        _install(plan, job, (*options, *relock.as_requirements(missing, requirements)), "--no-deps")
    wanted = {relock.name_of(line) for line in plan.lock}
    if besides := [name for line in there if (name := relock.name_of(line)) not in wanted]:
        _pip(plan, job, "uninstall", "--yes", *besides, timeout=QUERY_SECONDS, alone=True)


def _install(plan: Plan, job: Job, lines: tuple[str, ...], *how: str, constrained: bool = False) -> None:
    """Have pip install the lines of a requirements file. Raises `BuildFailed`."""
    spec = plan.spec
    place = plan.scratch / "files"  # builds write beside sources, and a snapshot stays as it is
    if not place.exists():
        place.mkdir()
        if plan.files is not None:
            copy_files(plan.files, spec.files, place)
    written = tuple(_with_place(line, place) for line in lines)
    arguments = [*how, "-r", _write(plan.scratch / "requirements.txt", written)]
    if constrained and spec.constraints:
        arguments += ["-c", _write(plan.scratch / "constraints.txt", spec.constraints)]
    try:
        _pip(
            plan, job, "install", "--no-color", "--progress-bar", "off", "--no-warn-script-location",
            "--cache-dir", str(plan.cache / "pip"), *arguments, timeout=INSTALL_SECONDS, cwd=place,
        )  # fmt: skip
    except CommandFailed as error:
        raise explain_pip(error, spec.interpreter, lines) from error


def _with_place(line: str, place: Path) -> str:
    """pip looks for links beside the requirements file first, for local packages where it runs: make both the same."""
    option, _, folder = line.partition(" ")
    if option != "--find-links" or "://" in folder:
        return line
    return f"{option} {shlex.quote(str(place / shlex.split(folder)[0]))}"


def _write(path: Path, lines: tuple[str, ...]) -> str:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def _check(plan: Plan, job: Job) -> None:
    """Warn where packages do not fit together; models run with worse, so this is no failure."""
    try:
        _pip(plan, job, "check", timeout=QUERY_SECONDS, alone=True)
    except CommandFailed as error:
        if error.exit_code != 1 or error.timed_out:
            raise explain_pip(error, plan.spec.interpreter) from error
        job.say("warning: some packages do not fit together (pip check)")


def _lock(plan: Plan, job: Job) -> tuple[str, ...]:
    """Return what is installed, sorted: `name==version`, or `name @ URL` for what came from version control."""
    lines = _pip(plan, job, "freeze", "--all", timeout=QUERY_SECONDS, quiet=True, alone=True).decode().splitlines()
    lines = [line for line in lines if line and not line.startswith(("#", "-"))]
    if any(" @ file:" in line for line in lines):  # a copy of the model's files, gone by then
        listed = json.loads(
            _pip(plan, job, "list", "--format", "json", timeout=QUERY_SECONDS, quiet=True, alone=True).decode()
        )
        versions = {relock.name_of(item["name"]): item["version"] for item in listed}
        lines = [
            f"{name}=={versions[relock.name_of(name)]}" if rest.startswith("file:") else line
            for line, (name, _, rest) in ((line, line.partition(" @ ")) for line in lines)
        ]
    return tuple(sorted(lines, key=str.lower))


def _pip(
    plan: Plan,
    job: Job,
    command: str,
    *arguments: str,
    timeout: float,
    cwd: Path | None = None,
    quiet: bool = False,
    alone: bool = False,
) -> bytes:
    """Run the environment's own pip; return its stdout. With `alone`, no configuration reaches it: it only reads."""
    variables = pip_variables(plan.variables, plan.folder)
    if alone:
        variables = {name: value for name, value in variables.items() if not name.startswith("PIP_")}
        variables |= {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_PYTHON_VERSION_WARNING": "1"}
    programs = plan.folder / "bin"
    # -m puts the working folder in front of the standard library, and a model may have a types.py.
    pip = [str(programs / "pip")] if cwd else ["-m", "pip"]
    argv = [str(programs / "python"), *pip, "--no-input", "--disable-pip-version-check", command, *arguments]
    return job.run(argv, env=variables, cwd=cwd or plan.scratch, timeout=timeout, quiet=quiet).stdout
