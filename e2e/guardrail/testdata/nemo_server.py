"""The unmodified server of NeMo Guardrails on a free port of 127.0.0.1, which is the first line of the output. Its own command listens on all addresses."""

import socket
import sys

import uvicorn
from nemoguardrails.server import api

api.app.rails_config_path = sys.argv[1]
listener = socket.socket()
listener.bind(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
uvicorn.Server(uvicorn.Config(api.app, log_level="info")).run(sockets=[listener])
