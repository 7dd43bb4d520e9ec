#!/usr/bin/env bash
# Presidio's e-mail recognizer asks the network for a list when it meets the first address.
#
# Expected: a pattern recognizer is a regular expression; it needs no network, and its first result comes as fast as the others.
# Seen (presidio-analyzer 2.2.366, tldextract 5.4.0): EmailRecognizer checks the domain with tldextract, which wants to download the public
# suffix list: from two hosts, one after the other. Text without an address asks nothing. If both fail, it logs two tracebacks, uses the
# list that comes with the package, and does not try again in that process.
# Why it matters to a gateway: the first prompt with an address waits for a third party, and the check that keeps private data inside
# calls out. Setting tldextract.tldextract.TLD_EXTRACTOR to TLDExtract(suffix_list_urls=()) avoids it.
#
# No query leaves this script: an audit hook of Python records each host name that is looked up, and refuses it.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install -q --disable-pip-version-check presidio-analyzer==2.2.366 tldextract==5.4.0
cat >"$dir/recognize.py" <<'PY'
import logging, socket, sys
from importlib.metadata import version

class Tracebacks(logging.Handler):
    count = 0
    def emit(self, record):
        self.count += record.exc_info is not None

tracebacks = Tracebacks()
logging.getLogger("tldextract").addHandler(tracebacks)
logging.getLogger("tldextract").propagate = False
from presidio_analyzer.predefined_recognizers import EmailRecognizer

hosts = []
def refuse(event, args):
    if event == "socket.getaddrinfo":
        if args[0] not in hosts:
            hosts.append(args[0])
        raise socket.gaierror(socket.EAI_NONAME, "refused by this script")
    if event == "socket.connect":
        raise ConnectionRefusedError("refused by this script")
sys.addaudithook(refuse)

print("presidio-analyzer", version("presidio-analyzer"), "tldextract", version("tldextract"))
recognizer = EmailRecognizer()
got = []
for text in ("no address here", "Write to ann@example.com, please.", "Or to bob@example.org."):
    hosts.clear()
    tracebacks.count = 0
    found = [text[r.start:r.end] for r in recognizer.analyze(text, ["EMAIL_ADDRESS"])]
    print(f"{text!r}: found {found}, looked up {hosts}, {tracebacks.count} tracebacks")
    got.append((len(found), len(hosts), tracebacks.count))
sys.exit(0 if got == [(0, 0, 0), (1, 2, 2), (1, 0, 0)] else "the behavior has changed")
PY
# A proxy would hide which host is asked for.
env -u http_proxy -u https_proxy -u all_proxy -u HTTP_PROXY -u HTTPS_PROXY -u ALL_PROXY TLDEXTRACT_CACHE="$dir/cache" \
  "$dir/venv/bin/python" "$dir/recognize.py"
