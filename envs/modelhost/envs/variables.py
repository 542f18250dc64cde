"""What the commands of a build see of the server's environment: the way to packages, and little else."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

# Names are compared without case: proxies are written both ways.
_PASSED = {
    "home", "path", "tz",
    "xdg_config_home", "xdg_config_dirs", "netrc",  # where pip.conf and passwords lie
    "http_proxy", "https_proxy", "ftp_proxy", "all_proxy", "no_proxy",
    "ssl_cert_file", "ssl_cert_dir", "requests_ca_bundle", "curl_ca_bundle", "git_ssl_cainfo",
}  # fmt: skip

# pip's settings that would put packages elsewhere, install more, or hide what we read from its output.
_PIP_NOT_PASSED = {
    "PIP_BREAK_SYSTEM_PACKAGES", "PIP_DRY_RUN", "PIP_EDITABLE", "PIP_IGNORE_INSTALLED", "PIP_LOG", "PIP_NO_DEPS",
    "PIP_PREFIX", "PIP_PYTHON", "PIP_QUIET", "PIP_REPORT", "PIP_REQUIREMENT", "PIP_ROOT", "PIP_SRC", "PIP_TARGET",
    "PIP_UPGRADE", "PIP_USER", "PIP_VERBOSE",
}  # fmt: skip


def build_variables(environ: Mapping[str, str], passthrough: Sequence[str], temporary: Path) -> dict[str, str]:
    """Return the environment of a build's commands, which put what is temporary into `temporary`."""
    passed = {
        name: value
        for name, value in environ.items()
        if name.lower() in _PASSED or (name.startswith("PIP_") and name not in _PIP_NOT_PASSED) or name in passthrough
    }
    return {"PATH": os.defpath, **passed, "LANG": "C.UTF-8", "TMPDIR": str(temporary)}


def pip_variables(variables: Mapping[str, str], folder: Path) -> dict[str, str]:
    """Return the environment of pip in the environment at `folder`."""
    return {
        **variables,
        "PATH": f"{folder / 'bin'}{os.pathsep}{variables['PATH']}",
        "VIRTUAL_ENV": str(folder),
        "PIP_USER": "0",  # a pip.conf with `user = true` would miss the environment
        "PIP_NO_PYTHON_VERSION_WARNING": "1",  # we know that Python 2.7 and 3.6 are past their end
        "PYTHONNOUSERSITE": "1",
        "PYTHONIOENCODING": "utf-8",
    }
