"""The client and the API's messages, imported when a verb first touches one.

`modelhost --help`, a completion or a mistyped option need neither gRPC nor protobuf, which take longer to import than
all the rest. So the verbs say `api.Deployment`, and this module looks the name up then.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    # The star is for type checkers alone, which know what it brings.
    from modelhost.client import *  # noqa: F403
    from modelhost.v1.access_pb2 import *  # noqa: F403
    from modelhost.v1.audit_pb2 import *  # noqa: F403
    from modelhost.v1.data_source_pb2 import *  # noqa: F403
    from modelhost.v1.deployment_pb2 import *  # noqa: F403
    from modelhost.v1.error_reason_pb2 import *  # noqa: F403
    from modelhost.v1.log_pb2 import *  # noqa: F403
    from modelhost.v1.operator_pb2 import *  # noqa: F403
    from modelhost.v1.predict_pb2 import *  # noqa: F403
    from modelhost.v1.runtime_pb2 import *  # noqa: F403
    from modelhost.v1.service_account_pb2 import *  # noqa: F403
    from modelhost.v1.service_pb2 import *  # noqa: F403
    from modelhost.v1.usage_pb2 import *  # noqa: F403

_MODULES = (
    "modelhost.client",
    "modelhost.v1.access_pb2",
    "modelhost.v1.audit_pb2",
    "modelhost.v1.data_source_pb2",
    "modelhost.v1.deployment_pb2",
    "modelhost.v1.error_reason_pb2",
    "modelhost.v1.log_pb2",
    "modelhost.v1.operator_pb2",
    "modelhost.v1.predict_pb2",
    "modelhost.v1.runtime_pb2",
    "modelhost.v1.service_pb2",
    "modelhost.v1.service_account_pb2",
    "modelhost.v1.usage_pb2",
)


os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # gRPC's C core would write to stderr what we report ourselves


def __getattr__(name: str) -> object:
    for module in _MODULES:
        if (found := getattr(import_module(module), name, None)) is not None:
            globals()[name] = found
            return found
    raise AttributeError(name)
