"""Keeps servers that listen on every address of the host to 127.0.0.1: what is measured here is for nobody else."""

import grpc.aio


def grpc_on_loopback() -> None:
    """Have the gRPC servers of this process, from now on, listen on 127.0.0.1, whatever they ask for."""
    listen = grpc.aio.Server.add_insecure_port

    def on_loopback(server: grpc.aio.Server, address: str) -> int:
        return listen(server, f"127.0.0.1:{address.rpartition(':')[2]}")

    grpc.aio.Server.add_insecure_port = on_loopback
