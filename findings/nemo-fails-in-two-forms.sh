#!/usr/bin/env bash
# NeMo Guardrails reports the failure of a rail in two forms: as a blocked text with status 200, or as a server error with status 500.
#
# Expected: a rail that fails has not judged the text. The response says so in one form, whatever failed, and it is not the form of a
# judgement.
# Seen (nemoguardrails 0.24.1, POST /v1/checks): a rail whose action raises an exception gives 200 {"status": "blocked"} with the content
# "I'm sorry, an internal error has occurred.", and names the rail as one that blocked. A rail whose LLM is unreachable gives 500 and a server_error.
# Why it matters to a gateway: one that counts failures, retries them, or has a rule of its own for a failed check sees only the second
# kind. It takes the first for a judgement, and tells the user that the text was refused: the reason is only in the log of the server.
set -euo pipefail
dir=$(mktemp -d)
trap 'kill "$server" 2>/dev/null && wait "$server" 2>/dev/null || true; rm -rf "$dir"' EXIT
server=
cd "$dir"
python3 -m venv venv
venv/bin/pip install -q --disable-pip-version-check --only-binary :all: 'nemoguardrails[server]==0.24.1' openai==2.54.0 fastapi==0.165.0 uvicorn==0.54.0 pydantic==2.14.4
mkdir -p configs/raises configs/unreachable
cat >configs/raises/config.yml <<'YAML'
models: []
rails:
  input: {flows: [look up names]}
YAML
cat >configs/raises/rails.co <<'CO'
define subflow look up names
  $user_message = execute look_up(text=$user_message)
CO
cat >configs/raises/actions.py <<'PY'
from nemoguardrails.actions import action

@action(is_system_action=True)
async def look_up(text: str):
    if "Jane" in text:
        raise RuntimeError("the list of names is gone")
    return text
PY
cat >configs/unreachable/config.yml <<'YAML'
models:
  - {type: main, engine: openai, model: m, parameters: {base_url: 'http://127.0.0.1:1/v1'}}  # nobody listens there
rails:
  input: {flows: [self check input]}
prompts:
  - {task: self_check_input, content: 'Is this bad? {{ user_input }}'}
YAML
cat >server.py <<'PY'
import socket, uvicorn
from nemoguardrails.server import api  # its own command listens on all addresses
api.app.rails_config_path = "configs"
listener = socket.socket()
listener.bind(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
uvicorn.Server(uvicorn.Config(api.app, log_level="info")).run(sockets=[listener])
PY
HOME=$dir DO_NOT_TRACK=1 HF_HUB_OFFLINE=1 OPENAI_API_KEY=none venv/bin/python server.py >port 2>log &
server=$!
until [ -s port ]; do kill -0 "$server" || { cat log; exit 1; }; sleep 0.1; done
cat >ask.py <<'PY'
import http.client, json, sys
def ask(config, text):
    client = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]), timeout=120)
    client.request("POST", "/v1/checks", headers={"content-type": "application/json"},
                   body=json.dumps({"model": "m", "messages": [{"role": "user", "content": text}], "guardrails": {"config_id": config}}))
    response = client.getresponse()
    got = json.loads(response.read())
    print(config, repr(text), response.status, json.dumps(got))
    return response.status, got
fine = ask("raises", "hello")
raises = ask("raises", "hello Jane")
unreachable = ask("unreachable", "hello")
ok = (fine[0] == 200 and fine[1]["status"] == "passed"
      and raises[0] == 200 and raises[1]["status"] == "blocked" and "internal error" in raises[1]["content"] and raises[1]["rail"] == "look up names"
      and unreachable[0] == 500 and unreachable[1]["error"]["type"] == "server_error")
sys.exit(0 if ok else "the behavior has changed")
PY
venv/bin/python ask.py "$(cat port)"
grep -q 'the list of names is gone' log || { echo 'the log has no reason'; exit 1; }
