"""What Ray Serve runs in its replica."""

import numpy
import sum_pb2
from ray import serve


@serve.deployment(
    num_replicas=1,
    max_ongoing_requests=1000,
    ray_actor_options={"num_cpus": 1},
    logging_config={"log_level": "WARNING", "enable_access_log": False},
)
class Adder:
    """The sum."""

    async def Add(self, request: sum_pb2.Numbers) -> sum_pb2.Sum:  # noqa: N802 - the method's name
        """Answer a request."""
        return sum_pb2.Sum(sum=numpy.asarray(request.numbers).sum())
