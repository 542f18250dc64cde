"""Forks children that outlive it and hold everything that it has: link, stdout, stderr.

Parameters: "group" for one in the worker's process group, "session" for one in a session of its own,
"program" for a program in a session of its own, "bare" for one in the group that inherits no environment, "stranger" for one that has neither, "twice" for a
grandchild whose parent has gone.
"""
import os
import subprocess
import sys
import time


def fork(then):
    pid = os.fork()
    if pid:
        return pid
    then()
    time.sleep(600)
    os._exit(0)


def twice():
    os.setsid()
    reader, writer = pipe
    os.write(writer, str(fork(os.setsid)).encode() + b"\n")
    os._exit(0)


def predict(parameters):
    global pipe
    if parameters == "group":
        return fork(lambda: None)
    if parameters == "session":
        return fork(os.setsid)
    if parameters == "program":
        return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], preexec_fn=os.setsid).pid
    if parameters == "bare":
        return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], env={}).pid
    if parameters == "stranger":
        return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], env={}, preexec_fn=os.setsid).pid
    if parameters == "twice":
        pipe = os.pipe()
        os.waitpid(fork(twice), 0)
        return int(os.read(pipe[0], 20))
    os._exit(1)
