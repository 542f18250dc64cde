"""Prints megabytes, in lines (of 16 bytes, or so many) or in one endless line, and returns how many bytes it has printed."""
import sys


def predict(parameters):
    width = parameters.get("width", 16)
    line = (b"0123456789abcdef" * (width // 16))[: width - 1] + (b"\n" if parameters["lines"] else b"f")
    block = line * (65536 // width)
    stream = getattr(sys.stdout, "buffer", sys.stdout)
    for _ in range(16 * parameters["megabytes"]):
        stream.write(block)
    stream.flush()
    return len(block) * 16 * parameters["megabytes"]
