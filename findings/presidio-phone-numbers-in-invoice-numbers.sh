#!/usr/bin/env bash
# Presidio finds phone numbers in dates, invoice numbers and the timestamp of OpenAI's responses, with the score of real ones.
#
# Expected: a score says how likely a finding is, so that a threshold separates +1 212 555 0123 from a date.
# Seen (presidio-analyzer 2.2.366, phonenumbers 9.0.43): what could be dialed in one of its eight regions is found, and everything found has the score 0.4:
# dates like 07.11.2026, invoice numbers like 2026-004711, and most Unix times of these years, which is the member "created" of each chat completion.
# Its e-mail recognizer gives 1.0 to icon@2x.zip, logo@3x.ai and the git@ of a repository's address.
# Why it matters to a gateway: a threshold loses all phone numbers or none, masking breaks dates in prompts, and who scans whole bodies instead of
# their text masks a number in JSON: the response can no longer be read.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install -q --disable-pip-version-check presidio-analyzer==2.2.366 phonenumbers==9.0.43 tldextract==5.4.0
cat >"$dir/recognize.py" <<'PY'
import json, sys
from importlib.metadata import version

import tldextract
tldextract.tldextract.TLD_EXTRACTOR = tldextract.TLDExtract(suffix_list_urls=())  # the list in the package, without the network
from presidio_analyzer.predefined_recognizers import EmailRecognizer, PhoneRecognizer

print("presidio-analyzer", version("presidio-analyzer"), "phonenumbers", version("phonenumbers"))
phone, email = PhoneRecognizer(), EmailRecognizer()
def find(recognizer, text):
    return [(text[r.start:r.end], r.score) for r in recognizer.analyze(text, recognizer.supported_entities)]

ok = True
for recognizer, text, want in (
    (phone, "Call +1 212 555 0123.", [("+1 212 555 0123", 0.4)]),
    (phone, "Call (415) 555-0132.", [("(415) 555-0132", 0.4)]),
    (phone, "Due on 07.11.2026.", [("07.11.2026", 0.4)]),
    (phone, "Invoice 2026-004711", [("2026-004711", 0.4)]),
    (phone, "Invoice 0711-2026-44", [("0711-2026-44", 0.4)]),
    (phone, json.dumps({"id": "chatcmpl-1", "created": 1764512345}), [("1764512345", 0.4)]),
    (email, "Write to ann@example.com.", [("ann@example.com", 1.0)]),
    (email, "The icons are in icon@2x.zip.", [("icon@2x.zip", 1.0)]),
    (email, "The logo is logo@3x.ai.", [("logo@3x.ai", 1.0)]),
    (email, "git clone git@github.com:owner/name.git", [("git@github.com", 1.0)]),
    (email, "The icon is icon@2x.png.", []),
):
    found = find(recognizer, text)
    print(f"{text}  ->  {found}")
    ok = ok and found == want
days = [1764512345 + 86437 * n for n in range(200)]
hit = sum(bool(find(phone, json.dumps({"created": t}))) for t in days)
print(f"of {len(days)} values of created, one per day, {hit} are phone numbers")
sys.exit(0 if ok and hit > len(days) / 2 else "the behavior has changed")
PY
"$dir/venv/bin/python" "$dir/recognize.py"
