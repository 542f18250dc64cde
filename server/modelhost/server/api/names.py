"""Resource names (https://google.aip.dev/122): `deployments/iris`. Requests may leave the collection out."""

import re

from modelhost.server.errors import InvalidRequest

DATA_SOURCES = "dataSources"
RUNTIMES = "runtimes"
ENVIRONMENTS = "environments"
DEPLOYMENTS = "deployments"
REVISIONS = "revisions"
SERVICES = "services"
ACCOUNTS = "serviceAccounts"
API_KEYS = "apiKeys"
GRANTS = "grants"
OPERATORS = "operators"
AUDIT_EVENTS = "auditEvents"

ID_LIMIT = 50
_ID = re.compile(r"[A-Za-z0-9_-]+")


def join(collection: str, resource_id: str) -> str:
    """`deployments`, `iris` → `deployments/iris`; empty for an empty id."""
    return f"{collection}/{resource_id}" if resource_id else ""


def parse(name: str, collection: str, field: str = "name") -> str:
    """The id in a resource name, or a bare id as it is. Raises `InvalidRequest`."""
    resource_id = name.removeprefix(f"{collection}/")
    if not resource_id or "/" in resource_id:
        raise InvalidRequest(
            field,
            "{field} must be {collection}/<id> or the bare id, not {name}",
            collection=collection,
            name=repr(name),
        )
    return resource_id


def parse_revision(name: str, field: str = "name") -> tuple[str, int]:
    """Deployment id and number in `deployments/iris/revisions/3`. Raises `InvalidRequest`."""
    parts = name.removeprefix(f"{DEPLOYMENTS}/").split("/")
    if len(parts) == 3 and parts[1] == REVISIONS and parts[0] and parts[2].isdecimal() and len(parts[2]) < 10:
        return parts[0], int(parts[2])
    raise InvalidRequest(field, "{field} must be deployments/<id>/revisions/<number>, not {name}", name=repr(name))


def parse_service(name: str, field: str = "service") -> str:
    """A service's or deployment's id, with or without its collection. Raises `InvalidRequest`."""
    if "/" not in name and name:
        return name
    collection = DEPLOYMENTS if name.startswith(f"{DEPLOYMENTS}/") else SERVICES
    return parse(name, collection, field)


def parse_api_key(name: str, field: str = "name") -> tuple[str, str]:
    """Account id and key id in `serviceAccounts/shop/apiKeys/1a2b`. Raises `InvalidRequest`."""
    parts = name.split("/")
    if len(parts) == 4 and (parts[0], parts[2]) == (ACCOUNTS, API_KEYS) and parts[1] and parts[3]:
        return parts[1], parts[3]
    raise InvalidRequest(field, "{field} must be serviceAccounts/<id>/apiKeys/<id>, not {name}", name=repr(name))


def check_new_id(resource_id: str, field: str, *, letter_first: bool = False, reserved: str = "") -> None:
    """Check an id that is to become part of a name. Raises `InvalidRequest`."""
    legal = (
        bool(_ID.fullmatch(resource_id))
        and len(resource_id) <= ID_LIMIT
        and (not letter_first or resource_id[0].isalpha())
        and not (reserved and resource_id.startswith(reserved))
    )
    if not legal:
        rules = ["1 to 50 characters of a-z A-Z 0-9 _ -"]
        rules += ["the first a letter"] if letter_first else []
        rules += [f"not beginning with {reserved}"] if reserved else []
        raise InvalidRequest(
            field, "{field} must be {rules}; {given} is not", rules=", ".join(rules), given=repr(resource_id[:80])
        )
