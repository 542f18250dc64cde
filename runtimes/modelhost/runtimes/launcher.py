"""Turns itself into a worker: prepares the process from within, step by step, then executes the worker's program.

    LAUNCH parent=PID link=FD open_files=N [tag=N] [nice=N] [uid=N processes=N]
        [cover=DIRECTORY ... keep=PATH ...] [read=PATH ... write=PATH ...] -- PROGRAM [ARGUMENT ...]

LAUNCH is `modelhost.runtimes.LAUNCH`, which calls `main`. PROGRAM is a path; it inherits the environment, the working
directory, descriptors 0, 1, 2 and FD. The server starts this with Popen and no `preexec_fn`, which would run Python in
a fork of a process with threads. If a step fails the exit code is 72 and one line on stderr names the step. Every
worker starts through here, so imports are counted in milliseconds.
"""

import _signal as signal  # `signal` proper loads enum: 5 ms
import ctypes
import os
import resource
import stat
import sys

_PR_SET_PDEATHSIG, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 1, 24, 38
_MOST_CAPABILITIES = 64
_CAPABILITY_VERSION_3 = 0x20080522  # linux/capability.h
_CLONE_NEWNS = 0x20000
_MS_NOSUID, _MS_NODEV, _MS_BIND, _MS_REC, _MS_SLAVE = 2, 4, 4096, 16384, 1 << 19

# linux/landlock.h; the system calls have the same numbers on every architecture.
_LANDLOCK_CREATE_RULESET, _LANDLOCK_ADD_RULE, _LANDLOCK_RESTRICT_SELF = 444, 445, 446
_LANDLOCK_VERSION_FLAG, _LANDLOCK_PATH_BENEATH = 1, 1
_READ = 0b1101  # execute, read files, read directories
_MAKE_DEVICES = 1 << 6 | 1 << 11
_FILE_RIGHTS = 0b111 | 1 << 14  # those that a rule for a file may have: execute, write, read, truncate
_FILE_SYSTEM_BITS = {1: 13, 2: 14}  # ABI 1 has rights 0 to 12, 2 linking and renaming as well, 3 truncating
_SCOPE_SOCKETS_AND_SIGNALS = 0b11  # since ABI 6

_RLIMIT_LOCKS = 10  # of every architecture; Python has no name for it

_EXIT_FAILED = 72

_LIBC = ctypes.CDLL(None, use_errno=True)

Spec = dict[str, list[str]]


def own_view(spec: Spec) -> None:
    """Directories that the worker's user could not enter are covered in a mount namespace of its own.

    On the cover there is nothing but what it needs of them. Other mounts of the host come and go here as there.
    """
    if "cover" not in spec:
        return
    here = os.getcwd()
    if _LIBC.unshare(_CLONE_NEWNS):
        closed = ", ".join(spec["cover"])
        raise PermissionError(f"others may not enter {closed}, and to cover that the server needs CAP_SYS_ADMIN")
    _mount("none", "/", "", _MS_REC | _MS_SLAVE)
    kept = [(path, os.open(path, os.O_PATH)) for path in spec.get("keep", ())]
    for directory in spec["cover"]:
        _mount("tmpfs", directory, "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=0711,size=1m")
    for path, descriptor in kept:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            os.makedirs(path, 0o711, exist_ok=True)
        else:
            os.makedirs(os.path.dirname(path), 0o711, exist_ok=True)
            os.close(os.open(path, os.O_CREAT))
        _mount(f"/proc/self/fd/{descriptor}", path, "", _MS_BIND | _MS_REC)
        os.close(descriptor)
    os.chdir(here)


def first_to_go(_: Spec) -> None:
    """Where memory runs out, the kernel takes a worker and not the server."""
    try:
        with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
            file.write("500")
    except OSError:
        pass  # it is a wish only


def identity(spec: Spec) -> None:
    """A user and a group of its own, who may open its stdout and stderr by name as well."""
    if "uid" in spec:
        (uid,) = map(int, spec["uid"])
        for descriptor in (1, 2):
            os.fchown(descriptor, uid, uid)
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)


def no_way_to_power(_: Spec) -> None:
    """Nothing that is executed gets a capability. As the server's user: another one may not take them away."""
    for capability in range(_MOST_CAPABILITIES):
        if _LIBC.prctl(_PR_CAPBSET_DROP, *map(ctypes.c_ulong, (capability, 0, 0, 0))):
            break  # beyond the last that the kernel knows; or a server without CAP_SETPCAP, to which all are refused


def no_power(_: Spec) -> None:
    """None of the server's capabilities: also where it is root and stays so."""
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    _check(_LIBC.capset(header, (ctypes.c_uint32 * 6)()))


def no_new_privileges(_: Spec) -> None:
    """Set-uid programs give the model nothing."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def die_with_parent(spec: Spec) -> None:
    """The kernel kills the worker when the thread that spawned it ends.

    Any change of credentials undoes this: steps that change them come before. A parent that ended before the call
    goes unnoticed by the kernel, hence the look at who it is now.
    """
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    (parent,) = spec["parent"]
    if os.getppid() != int(parent):
        raise OSError(f"process {parent} is gone")


def limits(spec: Spec) -> None:
    """No core files, and so many open ones, as far as this process itself may have them.

    `processes` counts all of its user's, threads as well: only for a user of its own. None of the address space, which
    is far larger than what is used of it.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _limit(resource.RLIMIT_NOFILE, *spec["open_files"])
    if "processes" in spec:
        _limit(resource.RLIMIT_NPROC, *spec["processes"])


def tag(spec: Spec) -> None:
    """A number that is found in /proc and stays with all that the model starts, whatever else it leaves behind.

    It is a limit of something else than what it says: file locks are not counted since Linux 2.4.25. Where the limit
    is lower already, or is none that can be set, the worker goes without.
    """
    if "tag" in spec:
        (number,) = map(int, spec["tag"])
        try:  # noqa: SIM105 - contextlib costs a millisecond
            _limit(_RLIMIT_LOCKS, str(number))
        except (OSError, ValueError):
            pass  # some sandboxes let it be


def private_files(_: Spec) -> None:
    """What the model writes is nobody else's to read."""
    os.umask(0o077)


def priority(spec: Spec) -> None:
    """Below the server, where wished."""
    if "nice" in spec:
        os.nice(int(spec["nice"][0]))


def close_descriptors(spec: Spec) -> None:
    """Nothing of the server's stays open, whether marked close-on-exec or not."""
    (link,) = map(int, spec["link"])
    os.fstat(link)
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        if descriptor > 2 and descriptor != link:
            os.closerange(descriptor, descriptor + 1)  # unlike close() silent about the listing's own, already closed


def default_signals(_: Spec) -> None:
    """Ignored signals and the mask outlive exec, and Python ignores SIGPIPE."""
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def landlock(spec: Spec) -> None:
    """Files are for reading below `read` and for writing below `write`, and signals for processes within.

    The last step, for the others need what this takes away.
    """
    if "write" not in spec:
        return
    abi = _syscall(_LANDLOCK_CREATE_RULESET, None, 0, _LANDLOCK_VERSION_FLAG)
    handled = (1 << _FILE_SYSTEM_BITS.get(abi, 15)) - 1
    words = [handled, 0, _SCOPE_SOCKETS_AND_SIGNALS]
    known = 3 if abi >= 6 else 1
    ruleset = _syscall(_LANDLOCK_CREATE_RULESET, (ctypes.c_uint64 * known)(*words), 8 * known, 0)
    for name, rights in (("read", _READ), ("write", handled & ~_MAKE_DEVICES)):
        for path in spec.get(name, ()):
            _allow(ruleset, path, rights)
    _syscall(_LANDLOCK_RESTRICT_SELF, ruleset, 0)
    os.close(ruleset)


STEPS = (
    own_view,
    limits,
    tag,
    private_files,
    priority,
    first_to_go,
    no_way_to_power,
    identity,
    no_power,
    no_new_privileges,
    die_with_parent,
    close_descriptors,
    default_signals,
    landlock,
)


def main(words: list[str]) -> None:
    """Runs the steps and executes the program; returns never."""
    step = "arguments"
    try:
        end = words.index("--")
        spec, program = _parse(words[:end]), words[end + 1 :]
        for prepare in STEPS:
            step = prepare.__name__
            prepare(spec)
        step = "execute"
        os.execv(program[0], program)  # noqa: S606 - no shell is what is wanted
    except (OSError, ValueError, LookupError) as error:
        print(f"modelhost launcher: {step}: {type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(_EXIT_FAILED)


def _parse(words: list[str]) -> Spec:
    spec: Spec = {}
    for word in words:
        name, value = word.split("=", 1)
        spec.setdefault(name, []).append(value)
    return spec


def _limit(which: int, wanted: str) -> None:
    _, most = resource.getrlimit(which)
    allowed = int(wanted) if most == resource.RLIM_INFINITY else min(int(wanted), most)
    resource.setrlimit(which, (allowed, allowed))


def _allow(ruleset: int, path: str, rights: int) -> None:
    """Add a rule for what is there; not every host has everything."""
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
        rights &= _FILE_RIGHTS
    rule = rights.to_bytes(8, sys.byteorder) + descriptor.to_bytes(4, sys.byteorder)
    _syscall(_LANDLOCK_ADD_RULE, ruleset, _LANDLOCK_PATH_BENEATH, rule, 0)
    os.close(descriptor)


def _mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    words = [os.fsencode(word) for word in (source, target, kind)]
    if _LIBC.mount(*words, ctypes.c_ulong(flags), os.fsencode(options)):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), target)


def _prctl(option: int, value: int) -> None:
    _check(_LIBC.prctl(option, *map(ctypes.c_ulong, (value, 0, 0, 0))))


def _syscall(number: int, *arguments: object) -> int:
    """A system call whose arguments are numbers and pointers."""
    words = [ctypes.c_ulong(each) if isinstance(each, int) else each for each in arguments]
    return _check(_LIBC.syscall(ctypes.c_long(number), *words))


def _check(returned: int) -> int:
    if returned < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return returned
