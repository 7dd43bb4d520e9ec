#!/usr/bin/env bash
# detect-secrets reports the header of a private key, not the key.
#
# Expected: its detector of private keys finds keys: it reports the block from BEGIN to END, and stays silent on a sentence about the format.
# Seen (detect-secrets 1.5.0): the secret that it reports is the text "BEGIN PRIVATE KEY", in a sentence about PEM as well as in a key. Nothing
# else is reported with all default plugins on, so a masker that replaces each reported secret leaves every line of the key itself.
# Why it matters to a gateway: the tool is made to stop a commit, for which a line number is enough. Masking with it shows "[REDACTED]"
# and passes the key on to the model; blocking with it refuses prompts that ask about PEM files.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install -q --disable-pip-version-check detect-secrets==1.5.0 cryptography==45.0.7
cat >"$dir/scan.py" <<'PY'
import os, sys, tempfile
from importlib.metadata import version

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from detect_secrets import SecretsCollection
from detect_secrets.settings import default_settings

def scan(text):
    with tempfile.TemporaryDirectory() as folder, default_settings():
        path = os.path.join(folder, "prompt.txt")
        with open(path, "w") as f:
            f.write(text)
        found = SecretsCollection()
        found.scan_file(path)
        return [(s.type, s.line_number, s.secret_value) for _, s in found]

print("detect-secrets", version("detect-secrets"))
key = rsa.generate_private_key(65537, 2048).private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()).decode()
got = []
for name, text in (("a sentence", "Why does my file say -----BEGIN PRIVATE KEY----- at its top?\n"), ("a new key", "Is this key valid?\n" + key)):
    found = scan(text)
    masked = text
    for _, _, secret in found:
        masked = masked.replace(secret, "[REDACTED]")
    body = [line for line in key.splitlines() if "-----" not in line]
    print(f"{name}: found {found}; {sum(line in masked for line in body)} of {len(body)} lines of the key are left after masking")
    got.append((found, sum(line in masked for line in body)))
want = [([("Private Key", line, "BEGIN PRIVATE KEY")], left) for line, left in ((1, 0), (2, len(body)))]
sys.exit(0 if got == want else "the behavior has changed")
PY
"$dir/venv/bin/python" "$dir/scan.py"
