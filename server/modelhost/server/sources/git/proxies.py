"""Which proxy a host is behind, by the variables that curl knows (curl(1), "ENVIRONMENT").

It is decided here and told to the command: else that might think otherwise, and look up what was not checked.
"""

import ipaddress
from collections.abc import Mapping

from modelhost.server.sources.git.place import Endpoint
from modelhost.server.sources.outgoing import literal

_VARIABLES = {"http": ("http_proxy",), "https": ("https_proxy", "HTTPS_PROXY")}  # HTTP_PROXY is not curl's
_VARIABLES_OF_ALL = ("all_proxy", "ALL_PROXY")


def proxy_for(there: Endpoint, variables: Mapping[str, str]) -> str:
    """The proxy for a host of http or https, as the variable has it; "" for none."""
    names = (*_VARIABLES[there.scheme], *_VARIABLES_OF_ALL)
    proxy = next((variables[name] for name in names if variables.get(name)), "")
    exempt = variables.get("no_proxy") or variables.get("NO_PROXY", "")
    return "" if not proxy or _is_exempt(there, exempt) else proxy


def _is_exempt(there: Endpoint, no_proxy: str) -> bool:
    """Whether a host, or a domain that it is in, or a network that it is an address of, is among what no proxy has."""
    address = literal(there.host)
    for each in no_proxy.lower().split(","):
        name = each.strip().strip("[]").strip(".")
        if name in ("*", there.host) or (name and there.host.endswith(f".{name}")):
            return True
        try:
            if address is not None and address in ipaddress.ip_network(name, strict=False):
                return True
        except ValueError:
            pass  # a name
    return False
