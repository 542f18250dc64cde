"""Failures of the step `provision`: the runtime, and what is asked for."""
# ruff: noqa: E501 - what other programs wrote

from modelhost.envs import Cause
from modelhost.server.catalogue.entry import Entry, Step
from modelhost.v1.error_reason_pb2 import ErrorReason

PROVISIONING = (
    Entry(
        ErrorReason.ERROR_REASON_RUNTIME_NOT_FOUND,
        Step.PROVISION,
        "The host has no such runtime",
        "Python 2.7 and 3.6 and R 3.6 are in no current distribution; they have to be installed beside it, with pyenv"
        " for example.",
        "Install the interpreter, or start the server with `--interpreter PATH`; `modelhost runtimes --refresh` looks"
        " again.",
        "this host has no runtime python1.5; it has: python2.7, python3.6",
    ),
    Entry(
        ErrorReason.ERROR_REASON_RUNTIME_UNUSABLE,
        Step.PROVISION,
        "The runtime cannot be used",
        "The interpreter is there but lacks a part that ModelHost needs, as a Python that was built without ssl.",
        "`modelhost runtimes` says what is missing; once it is mended, `modelhost runtimes --refresh`.",
        "python3.6 cannot be used: this Python was built without ssl",
    ),
    Entry(
        ErrorReason.ERROR_REASON_REQUIREMENT_NOT_FOUND,
        Step.PROVISION,
        "No such package",
        "The name is misspelt, is a module's and not a package's (cv2 is opencv-python), or the package is of your own"
        " company's index, which this host does not ask.",
        "Check the name, correct the requirements, commit, and `modelhost update NAME`; an index of your own belongs"
        " into the server's pip configuration.",
        "ERROR: Could not find a version that satisfies the requirement sklearnn==1.0 (from versions: none)\n"
        "ERROR: No matching distribution found for sklearnn==1.0",
        cause=Cause.PACKAGE_NOT_FOUND,
    ),
    Entry(
        ErrorReason.ERROR_REASON_REQUIREMENT_NOT_FOUND,
        Step.PROVISION,
        "No such version for this Python",
        "The index has no such version of the package, or only for other Pythons: pip lists those for this one alone.",
        "The newest version for Python {version} is {newest}: ask for one that is listed, commit, and `modelhost update"
        " NAME`; or take a newer runtime, `modelhost update NAME --runtime ID`.",
        "ERROR: Could not find a version that satisfies the requirement scikit-learn==1.5.0 (from versions: 0.9, 0.10,"
        " 0.23.2, 0.24.0, 0.24.1, 0.24.2)\n"
        "ERROR: No matching distribution found for scikit-learn==1.5.0",
        {"version": "3.6.15", "newest": "0.24.2"},
        Cause.VERSION_NOT_FOUND,
    ),
    Entry(
        ErrorReason.ERROR_REASON_REQUIREMENT_NOT_FOUND,
        Step.PROVISION,
        "No such R package or version",
        "The name is misspelt, or CRAN has removed the package: old versions stay in its archive, under a version.",
        "Check the name, and ask for a version of the repository's archive (`pkg==1.2.3`); `modelhost update NAME`.",
        "ERROR: nonesuch is in none of the repositories",
        cause=Cause.R_PACKAGE_NOT_FOUND,
    ),
    Entry(
        ErrorReason.ERROR_REASON_REQUIREMENT_NOT_FOUND,
        Step.PROVISION,
        "A locked package that is gone",
        "The revision's environment is not on this host, after a restore for example, and is built again from what was"
        " locked: exactly those versions. One of them is in the index no longer, or not for this interpreter.",
        "Have the index offer that version again, then `modelhost start NAME`; or `modelhost update NAME` makes a new"
        " revision, whose packages are resolved anew.",
        cause=Cause.LOCK_UNMET,
    ),
    Entry(
        ErrorReason.ERROR_REASON_REQUIREMENT_UNSUITABLE,
        Step.PROVISION,
        "A package for another Python",
        "The package refuses this Python: it is newer than the runtime, or a backport that only Python 2 needs.",
        "Ask for a version of the package that is for the runtime's Python, or drop it if it is a backport; or use another"
        " runtime, `modelhost update NAME --runtime ID`.",
        "  Complete output (1 lines):\n  This backport is for Python 2.7 only.\n"
        "ERROR: No matching distribution found for functools32==3.2.3.post2",
        cause=Cause.OTHER_PYTHON,
    ),
    Entry(
        ErrorReason.ERROR_REASON_REQUIREMENT_UNSUITABLE,
        Step.PROVISION,
        "A package for a newer R",
        "CRAN offers the newest version only, and that has left this R behind.",
        "Pin a version of {name}'s time (`pkg==1.2.3`), or have the server use a repository as it was then, such as a"
        " dated snapshot, with `--r-repository URL`.",
        "ERROR: modern is not available for R 3.6.3: the newest version, 9.1, needs R >= 4.0",
        {"name": "r3.6"},
        Cause.R_VERSION,
    ),
    Entry(
        ErrorReason.ERROR_REASON_REQUIREMENTS_CONFLICT,
        Step.PROVISION,
        "Requirements that exclude each other",
        "Two packages want different versions of a third. The pip of that time did not look; today's does.",
        "The build log says which they are, `modelhost logs NAME --build`: loosen one of them, commit, and `modelhost"
        " update NAME`.",
        "ERROR: Cannot install numpy==1.11.0 and scikit-learn==0.24.2 because these package versions have conflicting"
        " dependencies.\n\nThe conflict is caused by:\n    The user requested numpy==1.11.0\n"
        "    scikit-learn 0.24.2 depends on numpy>=1.13.3",
        cause=Cause.CONFLICT,
    ),
    Entry(
        ErrorReason.ERROR_REASON_REQUIREMENTS_CONFLICT,
        Step.PROVISION,
        "R packages of different times",
        "One package was pinned and another came in its newest version, which wants a newer third.",
        "Pin the packages to versions of one time, `modelhost logs NAME --build` names them; then `modelhost update"
        " NAME`.",
        "Error: namespace 'rlang' 0.4.5 is already loaded, but >= 1.1.0 is required",
        cause=Cause.R_CONFLICT,
    ),
    Entry(
        ErrorReason.ERROR_REASON_REQUIREMENTS_FAILED,
        Step.PROVISION,
        "A line that is no requirement",
        "The requirements have a line that pip, or R's list of packages, does not allow.",
        "Correct the line (`package==1.2.3`), commit, and `modelhost update NAME`; or give the lines anew with"
        " `--requirement`.",
        "ERROR: Invalid requirement: 'flask=1.0'\nHint: = is not a valid operator. Did you mean == ?",
        cause=Cause.LINE_INVALID,
    ),
    Entry(
        ErrorReason.ERROR_REASON_REQUIREMENTS_FAILED,
        Step.PROVISION,
        "The package's name is another",
        "`sklearn` was only ever an alias, which its authors have switched off.",
        "Ask for {package} under that name, commit, and `modelhost update NAME`.",
        "  - use 'pip install scikit-learn' rather than 'pip install sklearn'\n"
        "  - replace 'sklearn' by 'scikit-learn' in your pip requirements files",
        {"package": "scikit-learn"},
        Cause.STUB,
    ),
    Entry(
        ErrorReason.ERROR_REASON_REQUIREMENTS_FAILED,
        Step.PROVISION,
        "A file with another hash",
        "The requirements have hashes, and the index has another file under that version, as a wheel for this Python.",
        "Correct the hashes in the requirements, or leave them out; then `modelhost update NAME`.",
        "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE. If you have updated the package"
        " versions, please update the hashes.",
        cause=Cause.HASHES,
    ),
    Entry(
        ErrorReason.ERROR_REASON_PACKAGE_INDEX_UNREACHABLE,
        Step.PROVISION,
        "The package index does not answer",
        "The host has no way to the index: no network, a proxy that is not set, a certificate of your own authority.",
        "Check the host's network, proxy and certificates, and the index in the server's pip configuration; then"
        " `modelhost start NAME`.",
        "WARNING: Retrying (Retry(total=0, connect=None)) after connection broken by 'NewConnectionError('<x>: Failed to"
        " establish a new connection: [Errno 111] Connection refused',)': /simple/wrapt/\n"
        "ERROR: Could not find a version that satisfies the requirement wrapt (from versions: none)\n"
        "ERROR: No matching distribution found for wrapt",
        cause=Cause.INDEX_UNREACHABLE,
    ),
    Entry(
        ErrorReason.ERROR_REASON_PACKAGE_INDEX_UNREACHABLE,
        Step.PROVISION,
        "The R repository does not answer",
        "The host has no way to CRAN, or the repository that the server was started with is gone.",
        "Check the host's network and proxy, and the server's `--r-repository`; then `modelhost start NAME`.",
        "Warning: unable to access index for repository http://127.0.0.1:9/src/contrib",
        cause=Cause.R_INDEX_UNREACHABLE,
    ),
)
