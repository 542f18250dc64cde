"""Build an environment for R: a private library, filled by `install_packages.R` beside this module."""

import re
from collections.abc import Sequence
from pathlib import Path

from modelhost.envs.errors import BuildFailed, Cause
from modelhost.envs.failures import explain_r
from modelhost.envs.plan import INSTALL_SECONDS, Plan
from modelhost.envs.process import CommandFailed, Job
from modelhost.envs.values import r_variables

SCRIPT = Path(__file__).with_name("install_packages.R")
CHECK_SECONDS = 10 * 60.0  # loading every package that was asked for
_REQUIREMENT = re.compile(r"([A-Za-z0-9.]+?)(?:(>=|<=|==|!=|>|<)([0-9.-]+))?")


def build_r(plan: Plan, job: Job) -> tuple[str, ...]:
    """Make the library and install what is asked for; return the lock. Raises `BuildFailed`, `Cancelled`."""
    spec = plan.spec
    library = plan.folder / "library"
    library.mkdir()
    job.say(f"created an R {spec.interpreter.version} library")
    if not spec.requirements:
        return ()
    (plan.scratch / "repositories.txt").write_text("\n".join(plan.repositories) + "\n")
    if plan.lock:
        job.say(f"installing the {len(plan.lock)} packages that were locked")
        _write_requirements(plan, plan.lock)
        _run(plan, job, library, "install-locked", INSTALL_SECONDS)
        _write_requirements(plan, spec.requirements)
    else:
        job.say(f"installing {plan.count(spec.requirements)}")
        _write_requirements(plan, spec.requirements)
        _run(plan, job, library, "install", INSTALL_SECONDS)
    job.say("checking that the packages load")
    _run(plan, job, library, "check", CHECK_SECONDS)
    return plan.followed(tuple((plan.scratch / "lock.txt").read_text().split()))


def _write_requirements(plan: Plan, requirements: Sequence[str]) -> None:
    matches = [_REQUIREMENT.fullmatch(requirement) for requirement in requirements]
    if None in matches:
        raise BuildFailed(f"not a list of R packages: {', '.join(requirements)}", Cause.LINE_INVALID)
    lines = ["\t".join(part or "" for part in match.groups()) for match in matches if match]
    (plan.scratch / "requirements.tsv").write_text("\n".join(lines) + "\n")


def _run(plan: Plan, job: Job, library: Path, command: str, timeout: float) -> None:
    """Run the script. `--slave` is what R 3.6 calls `--no-echo`; later versions still take it."""
    r = [str(plan.spec.interpreter.path), "--vanilla", "--slave"]
    try:
        job.run(
            [*r, "-f", str(SCRIPT), "--args", command, str(library), str(plan.scratch)],
            env={**plan.variables, **r_variables(library)},
            cwd=plan.scratch,
            timeout=timeout,
        )
    except CommandFailed as error:
        failure = plan.scratch / "failure.txt"
        kind, _, message = failure.read_text().partition("\n") if failure.exists() else ("", "", "")
        raise explain_r(error, kind, message.strip(), plan.spec.interpreter) from error
