package provider

import (
	"encoding/json"
	"strings"
	"testing"

	pb "cloud.google.com/go/modelarmor/apiv1/modelarmorpb"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/inlet-proxy/inlet/internal/armor"
)

const armorConf = `{template: projects/p/locations/l/templates/t}`

// TestModelArmorRequest: Google's types read the requests, strictly.
func TestModelArmorRequest(t *testing.T) {
	const template = "projects/p/locations/l/templates/t"
	p := of(t, "modelArmor", armorConf)
	for _, c := range []struct {
		q    Question
		want armor.Request
	}{
		{Question{Text: []byte(nasty), Role: "system", Model: "m", Prompt: []byte("no")}, armor.Request{Template: template, Text: nasty}},
		{Question{Text: []byte(nasty), Response: true}, armor.Request{Template: template, Response: true, Text: nasty}},
		{Question{Text: []byte(nasty), Response: true, Prompt: []byte("why?")}, armor.Request{Template: template, Response: true, Text: nasty, Prompt: "why?"}},
	} {
		r := p.Ask(&c.q)
		got, err := armor.Parse(r.Path, r.Body)
		require.NoError(t, err)
		require.Equal(t, c.want, got)
	}
	_, err := armor.Parse("/v1/"+template+":sanitizeUserPrompt", []byte(`{"userPrompt":{"text":"x"}}`))
	require.Error(t, err, "the fake has to refuse a field's wrong name")
}

// verdict is a response that Google's types write.
func verdict(r *pb.SanitizationResult) string { return string(armor.Verdict(r)) }

// TestModelArmor is row G18 with its siblings: a match of any filter counts, and without one all must have run.
func TestModelArmor(t *testing.T) {
	const masked = "mail [EMAIL_ADDRESS]"
	all := func(name string, f *pb.FilterResult) string { return verdict(armor.Result(armor.With(name, f))) }
	change := func(r *pb.SanitizationResult, f func(*pb.SanitizationResult)) string { f(r); return verdict(r) }
	partial := func(r *pb.SanitizationResult) { r.InvocationResult = pb.InvocationResult_PARTIAL }
	deidentified := armor.Deidentified(armor.Ran, armor.Match, masked)
	readings(t, of(t, "modelArmor", armorConf), []reading{
		{"clean", verdict(armor.Result(armor.Clean())), "pass"},
		{"one filter", verdict(armor.Result(map[string]*pb.FilterResult{"csam": armor.Csam(armor.Ran, armor.None)})), "pass"},
		{"csam", all("csam", armor.Csam(armor.Ran, armor.Match)), "block csam"},
		{"malicious URI", all("malicious_uris", armor.URIs(armor.Ran, armor.Match)), "block malicious_uris"},
		{"injection", all("pi_and_jailbreak", armor.Injection(armor.Ran, armor.Match)), "block pi_and_jailbreak"},
		{"virus", all("virus_scan", armor.Virus(armor.Ran, armor.Match)), "block virus_scan"},
		{"responsible AI", all("rai", armor.Rai(armor.Ran, []string{"dangerous"})), "block rai, rai/dangerous"},
		{"responsible AI, unknown type", all("rai", armor.Rai(armor.Ran, []string{"new"})), "block rai, rai/other"},
		{"inspected", all("sdp", armor.Inspected(armor.Ran, armor.Match)), "block sdp"},
		{"deidentified", all("sdp", deidentified), "redact " + masked + " (sdp)"},
		{"deidentified to nothing", all("sdp", armor.Deidentified(armor.Ran, armor.Match, "")), "redact  (sdp)"},
		{"deidentified, nothing found", all("sdp", armor.Deidentified(armor.Ran, armor.None, "mail jane@example.com")), "pass"},
		{"deidentified, unchanged", all("sdp", armor.Deidentified(armor.Ran, armor.Match, "mail jane@example.com")), "block sdp"},
		{"deidentified, as bytes", all("sdp", asBytes(masked)), "block sdp"},
		{"deidentified and another match", change(armor.Result(armor.With("sdp", deidentified)), func(r *pb.SanitizationResult) {
			r.FilterResults["csam"] = armor.Csam(armor.Ran, armor.Match)
		}), "block csam, sdp"},
		{"deidentified, overall none", change(armor.Result(armor.With("sdp", deidentified)), func(r *pb.SanitizationResult) {
			r.FilterMatchState = armor.None
		}), "redact " + masked + " (sdp)"},
		{"match, overall none", change(armor.Result(armor.With("csam", armor.Csam(armor.Ran, armor.Match))), func(r *pb.SanitizationResult) {
			r.FilterMatchState = armor.None
		}), "block csam"},
		{"match overall, of no filter", change(armor.Result(armor.Clean()), func(r *pb.SanitizationResult) { r.FilterMatchState = armor.Match }), "block other"},
		{"match overall, and nothing else", change(&pb.SanitizationResult{}, func(r *pb.SanitizationResult) { r.FilterMatchState = armor.Match }), "block other"},

		{"skipped", all("csam", armor.Csam(armor.Skipped, 0)), "partial: csam"},
		{"skipped, no match", all("pi_and_jailbreak", armor.Injection(armor.Skipped, armor.None)), "partial: pi_and_jailbreak"},
		{"skipped, partial", change(armor.Result(armor.With("rai", armor.Rai(armor.Skipped, nil))), partial), "partial: rai"},
		{"partial", change(armor.Result(armor.Clean()), partial), "partial"},
		{"failure", change(armor.Result(armor.Clean()), func(r *pb.SanitizationResult) { r.InvocationResult = pb.InvocationResult_FAILURE }), "partial"},
		{"unspecified", change(armor.Result(armor.Clean()), func(r *pb.SanitizationResult) { r.InvocationResult = 0 }), "unreadable"},
		{"unspecified match", change(armor.Result(armor.Clean()), func(r *pb.SanitizationResult) { r.FilterMatchState = 0 }), "unreadable"},
		{"unspecified execution", all("csam", armor.Csam(0, armor.None)), "partial: csam"},
		{"unspecified match of a filter", all("csam", armor.Csam(armor.Ran, 0)), "partial: csam"},
		{"no filters", verdict(armor.Result(nil)), "partial: none, lasting"},
		{"no result of a filter", all("csam", &pb.FilterResult{}), "partial: other"},
		{"partial, and a match", change(armor.Result(armor.With("csam", armor.Csam(armor.Ran, armor.Match))), partial), "block csam"},
		{"partial, and deidentified", change(armor.Result(armor.With("sdp", deidentified)), func(r *pb.SanitizationResult) {
			partial(r)
			r.FilterResults["csam"] = armor.Csam(armor.Skipped, 0)
		}), "partial: csam; redact " + masked + " (sdp)"},
		{"empty", verdict(nil), "unreadable"},
	})
}

func asBytes(text string) *pb.FilterResult {
	f := armor.Deidentified(armor.Ran, armor.Match, "")
	f.GetSdpFilterResult().GetDeidentifyResult().Data = &pb.DataItem{DataItem: &pb.DataItem_ByteItem{ByteItem: &pb.ByteDataItem{ByteData: []byte(text)}}}
	return f
}

// TestModelArmorUnknown: what Google's types do not have yet.
func TestModelArmorUnknown(t *testing.T) {
	clean := verdict(armor.Result(armor.Clean()))
	with := func(filter string) string {
		return strings.Replace(clean, `"filterResults":{`, `"filterResults":{`+filter+`,`, 1)
	}
	readings(t, of(t, "modelArmor", armorConf), []reading{
		{"unknown filter", with(`"new":{"newFilterResult":{"executionState":"EXECUTION_SUCCESS","matchState":"NO_MATCH_FOUND"}}`), "pass"},
		{"unknown filter that matches", with(`"new":{"newFilterResult":{"executionState":"EXECUTION_SUCCESS","matchState":"MATCH_FOUND"}}`), "block other"},
		{"unknown filter that matches, deep", with(`"new":{"newFilterResult":{"parts":[{"result":{"matchState":"MATCH_FOUND"}}]}}`), "block other"},
		{"unknown filter, skipped", with(`"new":{"newFilterResult":{"executionState":"EXECUTION_SKIPPED"}}`), "partial: other"},
		{"unknown filter, unknown verdict", with(`"new":{"newFilterResult":{"verdict":"BAD"}}`), "partial: other"},
		{"unknown state", with(`"new":{"newFilterResult":{"executionState":"EXECUTION_SUCCESS","matchState":"MAYBE"}}`), "partial: other"},
		{"state of another type", with(`"new":{"newFilterResult":{"executionState":"EXECUTION_SUCCESS","matchState":{"is":"NO_MATCH_FOUND"}}}`), "partial: other"},
		{"no object", with(`"new":"x"`), "partial: other"},
		{"null", with(`"new":null`), "partial: other"},
		{"image redacted", strings.Replace(clean, "inspectResult", "redactResult", 1), "pass"},
		{"image redacted, match", strings.Replace(verdict(armor.Result(armor.With("sdp", armor.Inspected(armor.Ran, armor.Match)))), "inspectResult", "redactResult", 1), "block sdp"},
		{"metadata", strings.Replace(clean, `{"filterMatchState"`, `{"sanitizationMetadata":{"errorCode":"403","ignorePartialInvocationFailures":true},"filterMatchState"`, 1), "pass"},
		{"error", `{"error":{"code":429,"status":"RESOURCE_EXHAUSTED"}}`, "unreadable"},
		{"two states", strings.Replace(clean, `{"filterMatchState":`, `{"filterMatchState":"MATCH_FOUND","filterMatchState":`, 1), "block other"},
		{"two results", `{"sanitizationResult":{"invocationResult":"FAILURE"},` + clean[1:], "unreadable"},
		{"list", `{"sanitizationResult":[` + strings.TrimSuffix(strings.TrimPrefix(clean, `{"sanitizationResult":`), "}") + `]}`, "unreadable"},
	})
}

// FuzzModelArmor: a pass says so clearly, and a match is never one.
func FuzzModelArmor(f *testing.F) {
	for _, r := range []*pb.SanitizationResult{
		armor.Result(armor.Clean()), armor.Result(nil), armor.Result(armor.With("csam", armor.Csam(armor.Skipped, 0))),
		armor.Result(armor.With("rai", armor.Rai(armor.Ran, []string{"dangerous"}))),
		armor.Result(armor.With("sdp", armor.Deidentified(armor.Ran, armor.Match, "x"))),
	} {
		f.Add(armor.Verdict(r))
	}
	p := of(f, "modelArmor", armorConf)
	f.Fuzz(func(t *testing.T, body []byte) {
		got := outcome(t, p, &Question{Text: []byte("x")}, 200, string(body))
		if got != "pass" {
			return
		}
		var m struct {
			SanitizationResult map[string]any `json:"sanitizationResult"`
		}
		require.NoError(t, json.Unmarshal(body, &m))
		r := m.SanitizationResult
		require.Equal(t, "SUCCESS", r["invocationResult"])
		require.Equal(t, "NO_MATCH_FOUND", r["filterMatchState"])
		results, _ := r["filterResults"].(map[string]any)
		require.NotEmpty(t, results)
		for _, result := range results {
			said := texts(result)
			require.Contains(t, said, "EXECUTION_SUCCESS")
			require.Contains(t, said, "NO_MATCH_FOUND")
		}
	})
}

// TestModelArmorProperty: for results of any filters in any states, it is a block if any matched that leaves no text, else a failed check if
// any has not run or not judged, and a pass only if all found nothing.
func TestModelArmorProperty(t *testing.T) {
	p := of(t, "modelArmor", armorConf)
	rapid.Check(t, func(t *rapid.T) {
		filters := map[string]*pb.FilterResult{}
		blocked, incomplete, redacted := false, false, false
		for name, result := range map[string]func(pb.FilterExecutionState, pb.FilterMatchState) *pb.FilterResult{
			"csam": armor.Csam, "malicious_uris": armor.URIs, "pi_and_jailbreak": armor.Injection, "virus_scan": armor.Virus, "sdp": armor.Inspected,
			"masks": func(ran pb.FilterExecutionState, m pb.FilterMatchState) *pb.FilterResult {
				return armor.Deidentified(ran, m, "masked")
			},
		} {
			if !rapid.Bool().Draw(t, name) {
				continue
			}
			ran := pb.FilterExecutionState(rapid.IntRange(0, 3).Draw(t, "execution"))
			m := pb.FilterMatchState(rapid.IntRange(0, 3).Draw(t, "match"))
			filters[name] = result(ran, m)
			match := m == armor.Match
			blocked = blocked || match && name != "masks"
			redacted = redacted || match && name == "masks"
			incomplete = incomplete || ran != armor.Ran || !match && m != armor.None
		}
		r := armor.Result(filters)
		r.InvocationResult = pb.InvocationResult(rapid.IntRange(0, 4).Draw(t, "invocation"))
		body := armor.Verdict(r)
		v, err := p.Read(&Question{Text: []byte("text")}, 200, body)
		require.Equal(t, blocked, v.Blocked, "%s", body)
		failed := incomplete || len(filters) == 0 || r.InvocationResult != pb.InvocationResult_SUCCESS
		require.Equal(t, failed && !blocked, err != nil, "%s", body)
		require.False(t, v.Redacted && (blocked || !redacted), "%s", body)
		if err == nil {
			require.Equal(t, redacted && !blocked, v.Redacted, "%s", body)
		}
	})
}
