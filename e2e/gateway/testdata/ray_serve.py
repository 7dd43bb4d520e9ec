"""Ray Serve with one app that says what it received: the path, the model and the headers. Prints its port when the app can be asked."""

import os
import signal
import socket
import sys
import threading

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

import ray  # noqa: E402
from fastapi import FastAPI, Request  # noqa: E402
from ray import serve  # noqa: E402

with socket.socket() as s:
    s.bind(("127.0.0.1", 0))
    port = s.getsockname()[1]

ray.init(num_cpus=2, include_dashboard=False, _node_ip_address="127.0.0.1", _temp_dir=sys.argv[1], object_store_memory=80 << 20, log_to_driver=False)
serve.start(http_options={"host": "127.0.0.1", "port": port})

app = FastAPI()


@serve.deployment(num_replicas=1, ray_actor_options={"num_cpus": 0.1})
@serve.ingress(app)
class Model:
    @app.post("/v1/chat/completions")
    async def chat(self, request: Request):
        body = await request.json()
        return {
            "object": "chat.completion",
            "model": body.get("model"),
            "path": request.url.path,
            "headers": dict(request.headers),
            "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}],
        }


serve.run(Model.bind(), name="model", route_prefix="/")
end = threading.Event()
for s in (signal.SIGTERM, signal.SIGINT):
    signal.signal(s, lambda *_: end.set())
print(port, flush=True)
end.wait()
ray.shutdown()
