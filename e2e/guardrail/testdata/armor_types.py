"""Reads requests to Model Armor with the types that Google publishes, which refuse what they do not know. One JSON object a line:
{"path", "body"} gives the response that the types write, with a verdict of each kind that they have."""

import json
import sys

from google.cloud import modelarmor_v1 as armor

RAN, MATCH, NONE = armor.FilterExecutionState.EXECUTION_SUCCESS, armor.FilterMatchState.MATCH_FOUND, armor.FilterMatchState.NO_MATCH_FOUND


def response(**sdp):
    clean = {"execution_state": RAN, "match_state": NONE}
    results = {
        "csam": armor.FilterResult(csam_filter_filter_result=clean),
        "malicious_uris": armor.FilterResult(malicious_uri_filter_result=clean),
        "pi_and_jailbreak": armor.FilterResult(pi_and_jailbreak_filter_result=clean),
        "rai": armor.FilterResult(rai_filter_result={**clean, "rai_filter_type_results": {"dangerous": {"match_state": NONE}}}),
        "sdp": armor.FilterResult(sdp_filter_result=sdp),
    }
    result = armor.SanitizationResult(
        filter_match_state=MATCH if any(s.get("match_state") == MATCH for s in sdp.values()) else NONE,
        invocation_result=armor.InvocationResult.SUCCESS, filter_results=results)
    return armor.SanitizeUserPromptResponse.to_json(armor.SanitizeUserPromptResponse(sanitization_result=result),
                                                    use_integers_for_enums=False, including_default_value_fields=False)


for line in sys.stdin:
    asked = json.loads(line)
    kind = armor.SanitizeModelResponseRequest if asked["path"].endswith(":sanitizeModelResponse") else armor.SanitizeUserPromptRequest
    read = kind.from_json(asked["body"])
    data = getattr(read, "model_response_data", None) or read.user_prompt_data
    print(json.dumps({
        "text": data.text,
        "pass": response(inspect_result={"execution_state": RAN, "match_state": NONE}),
        "block": response(inspect_result={"execution_state": RAN, "match_state": MATCH}),
        "redact": response(deidentify_result={"execution_state": RAN, "match_state": MATCH, "data": {"text": "[MASKED]"}}),
        "image": response(redact_result={"execution_state": RAN, "match_state": MATCH, "redacted_image": b"x"}),
    }), flush=True)
