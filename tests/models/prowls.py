"""Tries what is none of its business, and says how that went: an answer, or the name of the error.

Parameters: {"do": one of those below, and its arguments}.
"""
import errno
import os
import signal
import socket
import subprocess


def read(path):
    with open(path, "rb") as file:
        return len(file.read(100))


def write(path):
    with open(path, "ab") as file:
        file.write(b"x")


def say(path, text):
    with open(path, "w") as file:
        file.write(text)


def kill(pid):
    os.kill(pid, signal.SIGKILL)


def run(argv):
    return subprocess.check_output(argv).decode()


def descriptors():
    """What each is, without the one of the listing."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[name] = os.readlink("/proc/self/fd/" + name).split(":")[0]
        except OSError:
            continue
    return found


def me():
    return {
        "pid": os.getpid(),
        "uid": os.getuid(),
        "groups": os.getgroups(),
        "home": os.path.expanduser("~"),
        "descriptors": descriptors(),
        "limits": open("/proc/self/limits").read(),
        "status": open("/proc/self/status").read(),
        "cwd": os.getcwd(),
    }


DEEDS = {
    "read": read,
    "list": lambda path: sorted(os.listdir(path)),
    "write": write,
    "say": say,
    "kill": kill,
    "run": run,
    "me": me,
    "become": lambda uid: os.setuid(uid),
    "device": lambda path: os.mknod(path, 0o20600, os.makedev(1, 1)),
    "connect": lambda name: socket.socket(socket.AF_UNIX).connect("\0" + name),
}


def predict(parameters):
    arguments = dict(parameters)
    try:
        return DEEDS[arguments.pop("do")](**arguments)
    except (IOError, OSError) as error:
        return errno.errorcode[error.errno]
