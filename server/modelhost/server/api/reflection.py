"""Server reflection, v1 and v1alpha: the two differ only in name, so one implementation speaks both.

https://github.com/grpc/grpc/blob/master/doc/server-reflection.md
"""

from collections.abc import AsyncIterator, Callable, Sequence

from google.protobuf import text_format
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import Default, DescriptorPool
from grpc_reflection.v1alpha.reflection_pb2 import (
    DESCRIPTOR,
    ErrorResponse,
    ExtensionNumberResponse,
    FileDescriptorResponse,
    ListServiceResponse,
    ServerReflectionRequest,
    ServerReflectionResponse,
    ServiceResponse,
)

from modelhost.server.api.call import Call
from modelhost.server.api.status import Code

SERVICE = DESCRIPTOR.services_by_name["ServerReflection"]
V1_NAME = "grpc.reflection.v1.ServerReflection"


class ReflectionMethods:
    """Answers from descriptor pools. `services` are the full names that are served.

    `private` are pools of our own, looked into before the process's: what other packages put there under the same names
    is not what is served.
    """

    def __init__(self, services: Sequence[str], private: Sequence[DescriptorPool] = ()) -> None:
        self._services = sorted(services)
        self._pool = Default()
        version_1 = DescriptorPool()
        version_1.Add(_version_1())
        self._pools = [*private, version_1, self._pool]

    async def server_reflection_info(
        self, call: Call, requests: AsyncIterator[ServerReflectionRequest]
    ) -> AsyncIterator[ServerReflectionResponse]:
        """Answer one question after the other."""
        async for request in requests:
            response = self._answer(request)
            response.valid_host = request.host
            response.original_request.CopyFrom(request)
            yield response

    def _answer(self, request: ServerReflectionRequest) -> ServerReflectionResponse:
        match request.WhichOneof("message_request"):
            case "list_services":
                services = [ServiceResponse(name=name) for name in self._services]
                return ServerReflectionResponse(list_services_response=ListServiceResponse(service=services))
            case "file_by_filename":
                wanted_file = request.file_by_filename
                return _files(lambda pool: pool.FindFileByName(wanted_file), self._pools)
            case "file_containing_symbol":
                symbol = request.file_containing_symbol
                return _files(lambda pool: _file_of(pool, symbol), self._pools)
            case "file_containing_extension":
                wanted = request.file_containing_extension
                return _files(
                    lambda pool: (
                        pool.FindExtensionByNumber(
                            pool.FindMessageTypeByName(wanted.containing_type), wanted.extension_number
                        ).file  # type: ignore[attr-defined]  # types-protobuf lacks it
                    ),
                    [self._pool],
                )
            case "all_extension_numbers_of_type":
                return self._extensions(request.all_extension_numbers_of_type)
            case _:
                return _error(Code.INVALID_ARGUMENT, "the request asks for nothing")

    def _extensions(self, name: str) -> ServerReflectionResponse:
        try:
            found = self._pool.FindAllExtensions(self._pool.FindMessageTypeByName(name))
        except KeyError:
            return _error(Code.NOT_FOUND, f"not found: {name[:200]}")
        numbers = sorted(extension.number for extension in found)
        return ServerReflectionResponse(
            all_extension_numbers_response=ExtensionNumberResponse(base_type_name=name, extension_number=numbers)
        )


def _file_of(pool: DescriptorPool, symbol: str) -> FileDescriptor:
    """The file that defines a symbol. Raises `KeyError`. Python's pool does not know those of methods."""
    try:
        return pool.FindFileContainingSymbol(symbol)
    except KeyError:
        service, _, method = symbol.rpartition(".")
        return pool.FindServiceByName(service).methods_by_name[method].containing_service.file


def _version_1() -> FileDescriptorProto:
    """The file of version 1, which grpcio-reflection lacks."""
    alpha = FileDescriptorProto()
    DESCRIPTOR.CopyToProto(alpha)
    return text_format.Parse(str(alpha).replace("v1alpha", "v1"), FileDescriptorProto())


def _files(
    find: Callable[[DescriptorPool], FileDescriptor], pools: Sequence[DescriptorPool]
) -> ServerReflectionResponse:
    """The file, of the first pool that has it, and all that it imports: what clients need to make sense of it."""
    for pool in pools:
        try:
            wanted = find(pool)
            break
        except KeyError:
            continue
    else:
        return _error(Code.NOT_FOUND, "not found")
    found: dict[str, bytes] = {}

    def add(file: FileDescriptor) -> None:
        if file.name not in found:
            for dependency in file.dependencies:
                add(dependency)
            found[file.name] = file.serialized_pb

    add(wanted)
    files = [found.pop(wanted.name), *found.values()]
    return ServerReflectionResponse(file_descriptor_response=FileDescriptorResponse(file_descriptor_proto=files))


def _error(code: Code, message: str) -> ServerReflectionResponse:
    return ServerReflectionResponse(error_response=ErrorResponse(error_code=code, error_message=message))
