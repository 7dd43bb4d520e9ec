"""Finds with the detectors that Inlet is compared with, and says how long they take.

peers.py presidio|detect-secrets LINES TEXT...: LINES has one JSON string per line. Prints one JSON object: "found" has the
kinds that were found in each line, "seconds" the least CPU time for each text.
"""

import contextlib
import json
import sys
import time


def presidio(_):
    import spacy
    import tldextract
    from presidio_analyzer import AnalyzerEngine, RecognizerRegistry
    from presidio_analyzer.nlp_engine import SpacyNlpEngine
    from presidio_analyzer.predefined_recognizers import (
        CreditCardRecognizer, EmailRecognizer, IbanRecognizer, IpRecognizer, PhoneRecognizer, UsSsnRecognizer,
    )

    # Not the list of domains of today, but the one that came with the package: nothing is fetched.
    tldextract.tldextract.TLD_EXTRACTOR = tldextract.TLDExtract(suffix_list_urls=())

    class Blank(SpacyNlpEngine):  # only the patterns: a language model adds nothing for these kinds, and takes 25 times as long
        def __init__(self):
            super().__init__()
            self.nlp = {"en": spacy.blank("en")}

        def load(self):
            pass

        def is_loaded(self):
            return True

    kinds = {"CREDIT_CARD": "card", "IBAN_CODE": "iban", "EMAIL_ADDRESS": "email", "PHONE_NUMBER": "phone", "US_SSN": "ssn", "IP_ADDRESS": "ip"}
    registry = RecognizerRegistry()
    for recognizer in (CreditCardRecognizer(), EmailRecognizer(), IbanRecognizer(), IpRecognizer(), PhoneRecognizer(), UsSsnRecognizer()):
        registry.add_recognizer(recognizer)
    engine = AnalyzerEngine(registry=registry, nlp_engine=Blank(), supported_languages=["en"], default_score_threshold=0.4)
    return lambda text: [kinds[r.entity_type] for r in engine.analyze(text=text, language="en", entities=list(kinds))]


def detect_secrets(stack):
    from detect_secrets.core.scan import scan_line
    from detect_secrets.settings import transient_settings

    kinds = {"AWS Access Key": "aws", "GitHub Token": "github", "JSON Web Token": "jwt", "Private Key": "pem"}
    plugins = ["AWSKeyDetector", "GitHubTokenDetector", "JwtTokenDetector", "PrivateKeyDetector"]

    stack.enter_context(transient_settings({"plugins_used": [{"name": name} for name in plugins]}))  # once: it is no part of a scan
    return lambda text: [kinds[s.type] for line in text.splitlines() for s in scan_line(line)]


def fastest(call):
    """The least CPU time of a call, by the rule of the function of this name in tools.go."""
    best, whole, samples = float("inf"), time.process_time(), 0
    while samples < 15 or time.process_time() - whole < 1:
        calls, begin, spent = 0, time.process_time(), 0
        while spent < 0.005:
            call()
            calls += 1
            spent = time.process_time() - begin
        best = min(best, spent / calls)
        samples += 1
    return best


def main(stack):
    find = {"presidio": presidio, "detect-secrets": detect_secrets}[sys.argv[1]](stack)
    with open(sys.argv[2], encoding="utf-8") as lines:
        found = [find(json.loads(line)) for line in lines]
    seconds = []
    for path in sys.argv[3:]:
        with open(path, encoding="utf-8") as file:
            text = file.read()
        seconds.append(fastest(lambda: find(text)))
    json.dump({"found": found, "seconds": seconds}, sys.stdout)


with contextlib.ExitStack() as all_along:
    main(all_along)
