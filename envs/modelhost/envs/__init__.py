"""Interpreters and isolated environments on this host's disk. Knows nothing of the server."""

from modelhost.envs.errors import BuildFailed, Cause, EnvironmentProblem, RequirementsInvalid
from modelhost.envs.interpreters import find_interpreters
from modelhost.envs.process import Cancelled, CommandFailed, Completed, Job, Stream
from modelhost.envs.requirements import default_requirements_file, read_requirements
from modelhost.envs.store import DEFAULT_R_REPOSITORIES, EnvironmentStore
from modelhost.envs.values import Environment, EnvironmentSpec, Interpreter, Language, Requirements

__all__ = [
    "DEFAULT_R_REPOSITORIES",
    "BuildFailed",
    "Cancelled",
    "Cause",
    "CommandFailed",
    "Completed",
    "Environment",
    "EnvironmentProblem",
    "EnvironmentSpec",
    "EnvironmentStore",
    "Interpreter",
    "Job",
    "Language",
    "Requirements",
    "RequirementsInvalid",
    "Stream",
    "default_requirements_file",
    "find_interpreters",
    "read_requirements",
]
