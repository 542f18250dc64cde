"""Ray Serve's gRPC with the sum: `python ray_sum.py PORT FOLDER [plain]`, with `ray[serve]` and `grpcio-tools`.

One replica, as many calls under way as anybody sends, no dashboard, no line per request; HAProxy in front and Ray's
other settings for throughput, as its guide to high throughput has it. Calls name the application in their headers.
With `plain` Ray's own proxy is in front, as it is where nobody sets anything.
"""

import os
import signal
import socket
import sys
import threading
from pathlib import Path

from grpc_tools import protoc

HERE = Path(__file__).parent


def free_port() -> int:
    """A port that nobody uses at the moment."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


if __name__ == "__main__":
    port, folder = int(sys.argv[1]), Path(sys.argv[2])
    proto = ["protoc", f"-I{HERE}", f"--python_out={folder}", f"--grpc_python_out={folder}", str(HERE / "sum.proto")]
    if protoc.main(proto):
        sys.exit("protoc failed")
    for_throughput = {
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "admin.sock"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(folder / "metrics.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
    }
    os.environ |= {"PYTHONPATH": f"{folder}:{HERE}", "RAY_USAGE_STATS_ENABLED": "0"}
    os.environ |= {} if sys.argv[3:] == ["plain"] else for_throughput
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
        http_options=HTTPOptions(host="127.0.0.1", port=free_port()),
        grpc_options=gRPCOptions(port=port, grpc_servicer_functions=["sum_pb2_grpc.add_AdderServicer_to_server"]),
    )
    serve.run(Adder.bind(), name="sum")
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    ended.wait()
    ray.shutdown()
