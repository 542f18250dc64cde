"""Turns itself into a worker: prepares the process from within, step by step, then executes the worker's program.

    python -I -S launcher.py parent=PID link=FD open_files=N [nice=N] -- PROGRAM [ARGUMENT ...]

PROGRAM is a path; it inherits the environment, the working directory, descriptors 0, 1, 2 and FD. The server starts
this with Popen and no `preexec_fn`, which would run Python in a fork of a process with threads. If a step fails the
exit code is 72 and one line on stderr names the step. Every worker starts through here, so imports are counted in
milliseconds.
"""

import _signal as signal  # `signal` proper loads enum: 5 ms
import ctypes
import os
import resource
import sys

_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38

_EXIT_FAILED = 72

Spec = dict[str, str]


def no_new_privileges(_: Spec) -> None:
    """Set-uid programs give the model nothing."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def die_with_parent(spec: Spec) -> None:
    """The kernel kills the worker when the thread that spawned it ends.

    Any change of credentials undoes this: steps that change them come before. A parent that ended before the call
    goes unnoticed by the kernel, hence the look at who it is now.
    """
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(spec["parent"]):
        raise OSError(f"process {spec['parent']} is gone")


def limits(spec: Spec) -> None:
    """No core files, and so many open ones, as far as this process itself may have them."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    wanted, (_, most) = int(spec["open_files"]), resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = wanted if most == resource.RLIM_INFINITY else min(wanted, most)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, allowed))


def private_files(_: Spec) -> None:
    """What the model writes is nobody else's to read."""
    os.umask(0o077)


def priority(spec: Spec) -> None:
    """Below the server, where wished."""
    if "nice" in spec:
        os.nice(int(spec["nice"]))


def close_descriptors(spec: Spec) -> None:
    """Nothing of the server's stays open, whether marked close-on-exec or not."""
    link = int(spec["link"])
    os.fstat(link)
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        if descriptor > 2 and descriptor != link:
            os.closerange(descriptor, descriptor + 1)  # unlike close() silent about the listing's own, already closed


def default_signals(_: Spec) -> None:
    """Ignored signals and the mask outlive exec, and Python ignores SIGPIPE."""
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


STEPS = (
    no_new_privileges,
    die_with_parent,
    limits,
    private_files,
    priority,
    close_descriptors,
    default_signals,
)


def main(words: list[str]) -> None:
    """Runs the steps and executes the program; returns never."""
    step = "arguments"
    try:
        end = words.index("--")
        spec, program = dict(word.split("=", 1) for word in words[:end]), words[end + 1 :]
        for prepare in STEPS:
            step = prepare.__name__
            prepare(spec)
        step = "execute"
        os.execv(program[0], program)  # noqa: S606 - no shell is what is wanted
    except (OSError, ValueError, LookupError) as error:
        print(f"modelhost launcher: {step}: {type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(_EXIT_FAILED)


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, *map(ctypes.c_ulong, (value, 0, 0, 0))):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


if __name__ == "__main__":
    main(sys.argv[1:])
