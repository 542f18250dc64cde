# -*- coding: utf-8 -*-
"""Answers so that it can be checked what answered, and does all that it should not when it is told to. For every Python.

Parameters: {"x": an integer, "echo": anything, "sleep": seconds, "do": one of the deeds below}. With "items" it streams so
many, each with "size" characters more; it sleeps before each, and does its deed instead of the one of number "at". As a
tensor, "x" may have many integers. The file `constant` tells revisions apart.
"""
import ctypes
import os
import signal
import subprocess
import sys
import time

with open("constant") as file:
    CONSTANT = int(file.read())
kept = []
opened = []  # streams that are not over: none is when the next call comes


def predict(parameters):
    if "items" in parameters:
        return stream(parameters)
    if "do" in parameters:
        DEEDS[parameters["do"]]()
    time.sleep(parameters.get("sleep", 0))
    return answer(parameters)


def stream(parameters):
    opened.append(parameters["echo"])
    try:
        for index in range(parameters["items"]):
            if index == parameters.get("at"):
                DEEDS[parameters["do"]]()
            time.sleep(parameters.get("sleep", 0))
            letter = "abcdefghijklmnopqrstuvwxyz"[index % 26]
            yield dict(answer(parameters), index=index, filling=letter * parameters["size"])
    finally:
        opened.remove(parameters["echo"])


def answer(parameters):
    x = parameters["x"]
    return {
        "constant": CONSTANT,
        "echo": parameters["echo"],
        "value": [each * 31 + CONSTANT for each in x] if isinstance(x, list) else x * 31 + CONSTANT,
        "pid": os.getpid(),
        "opened": len(opened),
    }


def loop():
    while True:
        pass


def stubborn():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    loop()


def fall():
    """Deeper than any stack."""
    sys.setrecursionlimit(10 ** 8)

    def deeper(number):
        return deeper(number + 1) + 1

    deeper(0)


def leave():
    """A child in a session of its own, whose parent is gone; and a program that has not even its environment."""
    child = os.fork()
    if child == 0:
        os.setsid()
        if os.fork() == 0:
            time.sleep(600)
        os._exit(0)
    os.waitpid(child, 0)
    if "OWN_USER" in os.environ:  # it is known by its user alone
        kept.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], env={}, preexec_fn=os.setsid))


def grow():
    kept.append(os.urandom(1 << 20) * 400)
    time.sleep(600)


def refuse():
    raise ValueError(u"so it g\u00f6es")


DEEDS = {
    "exit": lambda: os._exit(0),
    "segfault": lambda: ctypes.string_at(0),
    "loop": loop,
    "stubborn": stubborn,
    "fall": fall,
    "leave": leave,
    "grow": grow,
    "raise": refuse,
}
