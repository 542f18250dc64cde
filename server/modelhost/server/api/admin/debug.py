"""Debug: one call of a model with everything that helps to understand it."""

from modelhost.server.api.call import Call
from modelhost.v1 import deployment_pb2 as pb


class DebugMethods:
    """Handler of DebugDeployment."""

    async def debug_deployment(self, call: Call, request: pb.DebugDeploymentRequest) -> pb.DebugDeploymentResponse:
        """Call once."""
        raise NotImplementedError
