"""HTTP connections to where the server may go, and to no other addresses than those that were checked."""

import socket
import ssl
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError
from urllib3.util.connection import create_connection

from modelhost.server.sources.outgoing import Outgoing


class NoCredentials(requests.auth.AuthBase):
    """Keeps `requests` from looking for some in the `.netrc` of the server's user."""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Leave the request as it is."""
        return request


class GuardedAdapter(HTTPAdapter):
    """Sends requests where `outgoing` allows it, and checks certificates by `context`, and by the host's name.

    Proxies are the administrator's, and are connected to as they are: whoever sends something through one checks
    first with `Outgoing.check_behind_proxy`. Sending raises `Conflict` HOST_NOT_ALLOWED besides what `requests` does.
    """

    def __init__(self, outgoing: Outgoing, context: ssl.SSLContext) -> None:
        self._outgoing = outgoing
        self._context = context
        super().__init__(max_retries=0)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """See `HTTPAdapter`."""
        super().init_poolmanager(*args, **kwargs, ssl_context=self._context)
        self.poolmanager.pool_classes_by_scheme = _pools(self._outgoing)

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        """See `HTTPAdapter`."""
        return super().proxy_manager_for(proxy, **kwargs, ssl_context=self._context)

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
        """See `HTTPAdapter`; `requests` would trust a list that it brings along."""
        conn.cert_reqs = "CERT_NONE" if verify is False else "CERT_REQUIRED"


def _pools(outgoing: Outgoing) -> dict[str, type[HTTPConnectionPool]]:
    """What urllib3 connects with, by scheme."""

    class Connection(HTTPConnection):
        def _new_conn(self) -> socket.socket:
            return _connected(self, outgoing)

    class SecureConnection(HTTPSConnection):
        def _new_conn(self) -> socket.socket:
            return _connected(self, outgoing)

    class Pool(HTTPConnectionPool):
        ConnectionCls = Connection

    class SecurePool(HTTPSConnectionPool):
        ConnectionCls = SecureConnection

    return {"http": Pool, "https": SecurePool}


def _connected(connection: HTTPConnection, outgoing: Outgoing) -> socket.socket:
    """Connect as urllib3 does it, with its errors, but to addresses that are looked up once and checked."""
    try:
        addresses = outgoing.addresses(connection.host, connection.port)
    except socket.gaierror as error:
        raise NameResolutionError(connection.host, connection, error) from error
    failure: OSError = socket.gaierror(socket.EAI_NONAME, "no address")
    for address in addresses:
        try:
            return create_connection(
                (address, connection.port),
                connection.timeout,
                source_address=connection.source_address,
                socket_options=connection.socket_options,
            )
        except OSError as error:
            failure = error
    if isinstance(failure, TimeoutError):
        raise ConnectTimeoutError(connection, f"connecting to {connection.host} took too long") from failure
    raise NewConnectionError(connection, f"no connection to {connection.host}: {failure}") from failure
