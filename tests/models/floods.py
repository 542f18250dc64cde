"""Prints megabytes, in lines or in one endless line, and returns how many bytes it has printed."""
import sys


def predict(parameters):
    line = (b"0123456789abcde\n" if parameters["lines"] else b"0123456789abcdef") * 4096
    stream = getattr(sys.stdout, "buffer", sys.stdout)
    for _ in range(16 * parameters["megabytes"]):
        stream.write(line)
    stream.flush()
    return len(line) * 16 * parameters["megabytes"]
