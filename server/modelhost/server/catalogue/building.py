"""Failures of the step `provision` once it is known what to install: building it, and the host."""
# ruff: noqa: E501 - what other programs wrote

from modelhost.envs import Cause
from modelhost.server.catalogue.entry import Entry, Step
from modelhost.v1.error_reason_pb2 import ErrorReason

BUILDING = (
    Entry(
        ErrorReason.ERROR_REASON_SYSTEM_LIBRARY_MISSING,
        Step.PROVISION,
        "A library or tool that this page does not know",
        "No wheel fits this Python, so the package is compiled here, and what it is compiled with is missing.",
        "Install the Debian package that has what the message names (`apt-file search` finds it) on the server's host,"
        " then `modelhost start NAME`; or ask for a version that has a wheel.",
        "    x.c:1:10: fatal error: nosuch.h: No such file or directory",
        {"missing": "nosuch.h"},
        Cause.LIBRARY_UNNAMED,
    ),
    Entry(
        ErrorReason.ERROR_REASON_SYSTEM_LIBRARY_MISSING,
        Step.PROVISION,
        "A system library, header or compiler is missing",
        "No wheel fits this Python, so the package is compiled here; R packages always are. What it is compiled with is"
        " missing on the host.",
        "{missing} is missing: on the server's host, `apt-get install {package}`, then `modelhost start NAME`. Or ask for"
        " a version that has a wheel.",
        "    src/pyodbc.h:56:10: fatal error: sql.h: No such file or directory\n"
        "       56 | #include <sql.h>\n"
        "    compilation terminated.\n"
        "    error: command 'gcc' failed with exit status 1",
        {"missing": "sql.h", "package": "unixodbc-dev"},
        Cause.LIBRARY_MISSING,
    ),
    Entry(
        ErrorReason.ERROR_REASON_REQUIREMENTS_FAILED,
        Step.PROVISION,
        "A package whose build needs another package",
        "Its setup.py imports a package, often numpy, that pip installs only afterwards; on the author's machine it was"
        " there already.",
        "Ask for a version that has a wheel for Python {version}: its build needs {package} before pip has installed it.",
        '      File "/tmp/pip-install-qIyCuy/scipy/setup.py", line 468, in setup_package\n'
        "        from numpy.distutils.core import setup\n"
        "    ImportError: No module named numpy.distutils.core\n"
        "ERROR: Command errored out with exit status 1: python setup.py egg_info",
        {"version": "3.6.15", "package": "numpy"},
        Cause.BUILD_NEEDS_PACKAGE,
    ),
    Entry(
        ErrorReason.ERROR_REASON_REQUIREMENTS_FAILED,
        Step.PROVISION,
        "A package that only an old setuptools builds",
        "Its setup.py turns Python 2 code into Python 3 with use_2to3, which setuptools dropped in version 58.",
        "Ask for a later version of the package, which needs no use_2to3, or for one that has a wheel.",
        "  error in GDAL setup command: use_2to3 is invalid.\nERROR: No matching distribution found for GDAL==2.4.0",
        cause=Cause.BUILD_TOO_OLD,
    ),
    Entry(
        ErrorReason.ERROR_REASON_REQUIREMENTS_FAILED,
        Step.PROVISION,
        "A package that does not compile",
        "Its source code was written for another version of Python, or of the compiler.",
        "Ask for a version that has a wheel for Python {version}, or use the runtime of the package's time, `modelhost"
        " update NAME --runtime ID`.",
        "      numpy/core/src/multiarray/scalartypes.c.src:2968:27: error: incompatible type for argument 1 of"
        " ‘_Py_HashDouble’\n"
        "  ERROR: Failed building wheel for numpy",
        {"version": "3.6.15"},
        Cause.COMPILATION,
    ),
    Entry(
        ErrorReason.ERROR_REASON_REQUIREMENTS_FAILED,
        Step.PROVISION,
        "A package whose setup.py fails",
        "The package's own build raised an error; often it was written for another version of Python.",
        "The package's own build failed, `modelhost logs NAME --build` shows how; it may be meant for another Python than"
        " {version}.",
        '      File "setup.py", line 1, in <module>\n    SyntaxError: invalid syntax\n'
        "ERROR: Command errored out with exit status 1: python setup.py egg_info",
        {"version": "3.6.15"},
        Cause.BUILD_RAISED,
    ),
    Entry(
        ErrorReason.ERROR_REASON_REQUIREMENTS_FAILED,
        Step.PROVISION,
        "An R package that does not build",
        "Its code is for another version of R, or its build failed for a reason of its own.",
        "`modelhost logs NAME --build` shows how it failed; a version of {name}'s time (`pkg==1.2.3`) may build.",
        "ERROR: lazy loading failed for package 'odd'",
        {"name": "r3.6"},
        Cause.R_INSTALL,
    ),
    Entry(
        ErrorReason.ERROR_REASON_REQUIREMENTS_FAILED,
        Step.PROVISION,
        "An R package that does not load",
        "It was installed, but fails when it is loaded.",
        "The package was installed but does not load, `modelhost logs NAME --build` shows why; try another version of it.",
        "ERROR: odd does not load: .onLoad failed in loadNamespace() for 'odd'",
        cause=Cause.R_LOAD,
    ),
    Entry(
        ErrorReason.ERROR_REASON_ENVIRONMENT_FAILED,
        Step.PROVISION,
        "The build failed for another reason",
        "The installer failed in a way that this page does not know.",
        "The build log has the whole output: `modelhost logs NAME --build`.",
        cause=Cause.UNKNOWN,
    ),
    Entry(
        ErrorReason.ERROR_REASON_ENVIRONMENT_FAILED,
        Step.PROVISION,
        "The package index refuses access",
        "The index wants a name and password, or refuses those it was given.",
        "Check the credentials in the server's pip configuration, then `modelhost start NAME`.",
        "ERROR: 401 Client Error: Unauthorized for url: https://pypi.example.com/simple/six/",
        cause=Cause.INDEX_REFUSES,
    ),
    Entry(
        ErrorReason.ERROR_REASON_DISK_FULL,
        Step.PROVISION,
        "The disk is full while an environment is built",
        "Environments, snapshots and downloads lie in the state directory.",
        "Make room on the disk of the server's state directory: `modelhost environments collect` removes what nothing"
        " uses, and its `cache` may be deleted. Then `modelhost start NAME`.",
        "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device",
        cause=Cause.DISK_FULL,
    ),
    Entry(
        ErrorReason.ERROR_REASON_ENVIRONMENT_FAILED,
        Step.PROVISION,
        "Too little memory to build",
        "Compiling, and unpacking large wheels, takes more memory than the host has free.",
        "Free memory on the host, or ask for a version that has a wheel; then `modelhost start NAME`.",
        "    cc1plus: out of memory\n    virtual memory exhausted: Cannot allocate memory",
        cause=Cause.MEMORY,
    ),
    Entry(
        ErrorReason.ERROR_REASON_ENVIRONMENT_FAILED,
        Step.PROVISION,
        "The build was killed",
        "The system ended the build with signal KILL: mostly because memory ran out.",
        "The host may have run out of memory: free some, or ask for versions that have wheels; then `modelhost start"
        " NAME`.",
        cause=Cause.KILLED,
    ),
    Entry(
        ErrorReason.ERROR_REASON_ENVIRONMENT_FAILED,
        Step.PROVISION,
        "The build took too long",
        "Compiling a large package, or waiting for a network, took longer than a build may.",
        "`modelhost logs NAME --build` shows how far it came; `modelhost start NAME` tries again.",
        cause=Cause.TOOK_TOO_LONG,
    ),
    Entry(
        ErrorReason.ERROR_REASON_ENVIRONMENT_FAILED,
        Step.PROVISION,
        "The empty environment cannot be made",
        "virtualenv cannot use the interpreter, or the state directory cannot be written.",
        "Check the interpreter that `modelhost runtimes` names and the state directory; then `modelhost start NAME`.",
        "RuntimeError: failed to query /usr/bin/python3.6 with code 127",
        cause=Cause.INTERPRETER,
    ),
)
