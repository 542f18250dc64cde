"""A network with nothing in it but loopback, for what is measured: some servers listen on every address of their host.

It takes root to have one. Without it the benchmark runs where it is, without those servers.
"""

import fcntl
import socket
import struct
import subprocess

_SET_FLAGS = 0x8914  # SIOCSIFFLAGS of linux/sockios.h
_UP = 0x1  # IFF_UP of linux/if.h
UNSHARE = ("unshare", "--net", "--")


def prefix() -> tuple[str, ...]:
    """What starts a program in a network of its own; empty where that cannot be had."""
    try:
        tried = subprocess.run([*UNSHARE, "true"], capture_output=True, check=False)
    except OSError:
        return ()
    return UNSHARE if tried.returncode == 0 else ()


def is_private() -> bool:
    """Whether this process is in such a network."""
    return [name for _, name in socket.if_nameindex()] == ["lo"]


def raise_loopback() -> None:
    """Have 127.0.0.1 in a network that was just made. Raises `OSError`."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SET_FLAGS, struct.pack("16sH14x", b"lo", _UP))
