"""Ray Serve's gRPC with the sum: `python ray_sum.py PORT FOLDER`, in a virtualenv with `ray[serve]` and `grpcio-tools`.

One replica, as many calls under way as anybody sends, Ray's settings for throughput, no dashboard, no line per request.
"""

import os
import signal
import sys
import threading
from pathlib import Path

from grpc_tools import protoc

HERE = Path(__file__).parent

if __name__ == "__main__":
    port, folder = int(sys.argv[1]), Path(sys.argv[2])
    proto = ["protoc", f"-I{HERE}", f"--python_out={folder}", f"--grpc_python_out={folder}", str(HERE / "sum.proto")]
    if protoc.main(proto):
        sys.exit("protoc failed")
    os.environ["PYTHONPATH"] = f"{folder}:{HERE}"
    os.environ["RAY_SERVE_THROUGHPUT_OPTIMIZED"] = "1"
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    sys.path.insert(0, str(folder))

    import ray
    from ray import serve
    from ray.serve.config import HTTPOptions, ProxyLocation, gRPCOptions
    from ray_deployment import Adder

    ray.init(
        num_cpus=4,  # bookings, not cores: the proxy and the controller want some
        include_dashboard=False,
        _node_ip_address="127.0.0.1",
        _temp_dir=str(folder / "ray"),
    )
    serve.start(
        proxy_location=ProxyLocation.HeadOnly,
        http_options=HTTPOptions(host="127.0.0.1", port=0),
        grpc_options=gRPCOptions(port=port, grpc_servicer_functions=["sum_pb2_grpc.add_AdderServicer_to_server"]),
    )
    serve.run(Adder.bind())
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    ended.wait()
    serve.shutdown()
    ray.shutdown()
