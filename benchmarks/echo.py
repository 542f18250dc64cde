"""The ceiling of a Python gRPC server: grpc.aio on uvloop, no worker, no parsing; every method answers what it is sent.

Prints its port on 127.0.0.1 and runs until it is ended.
"""

from typing import Any

import grpc
import uvloop


async def _echo(data: bytes, context: object) -> bytes:
    return data


class _Everything(grpc.GenericRpcHandler):
    def __init__(self) -> None:
        self._handler: Any = grpc.unary_unary_rpc_method_handler(_echo)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """grpcio: the handler of a call."""
        return self._handler


async def main() -> None:
    """Serve."""
    unlimited = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    server = grpc.aio.server(options=unlimited)
    server.add_generic_rpc_handlers((_Everything(),))
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.run(main())
