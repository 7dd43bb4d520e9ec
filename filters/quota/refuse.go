package quota

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/reading/llm"
	"github.com/inlet-proxy/inlet/shared/state/account"
)

// reason is why a request is refused without looking at a limit.
type reason struct {
	status  int
	code    string
	message string
	fault   fault
}

// fault is a refusal in Apigee's words.
type fault struct{ text, code string }

const invalidKey = "Invalid ApiKey"

var (
	// keyMissing's fault is the one that the sample of Apigee with GKE Inference Gateway raises.
	keyMissing = reason{
		401, "missing_api_key", "You didn't provide an API key. Provide your API key as ",
		fault{"Raising fault. Fault name : RF-insufficient-request-raise-fault", "steps.raisefault.RaiseFault"},
	}
	keyInvalid     = reason{401, "invalid_api_key", "Incorrect API key provided. Provide your API key as ", fault{invalidKey, "oauth.v2.InvalidApiKey"}}
	conflicting    = reason{401, "conflicting_api_keys", "You provided API keys of two different callers. Provide one key, as ", fault{invalidKey, "oauth.v2.InvalidApiKey"}}
	keyRevoked     = reason{401, "revoked_api_key", "Your API key was revoked. Use another one, as ", fault{"API Key is revoked", "oauth.v2.ApiKeyNotApproved"}}
	keyExpired     = reason{401, "expired_api_key", "Your API key has expired. Use another one, as ", fault{invalidKey, "oauth.v2.InvalidApiKey"}}
	appNotApproved = reason{401, "app_not_approved", "Your application is not approved. Ask the operator of this gateway to approve it.", fault{"Client identifier is invalid", "keymanagement.service.consumer_key_missing_api_product_association"}}
	unknownApp     = reason{401, "unknown_app", "Your application is not known here. Ask the operator of this gateway to add it.", fault{invalidKey, "oauth.v2.InvalidApiKey"}}
	identityTwice  = reason{401, "conflicting_identities", "Your request says more than once which application it is of.", fault{invalidKey, "oauth.v2.InvalidApiKey"}}

	noProduct    = reason{403, "no_product", "Your API key has no approved product.", fault{"Invalid ApiKey for given resource", "oauth.v2.InvalidApiKeyForGivenResource"}}
	notPermitted = reason{403, "operation_not_permitted", "Your product does not include this operation.", fault{"Invalid ApiKey for given resource", "oauth.v2.InvalidApiKeyForGivenResource"}}
	noModel      = reason{403, "model_not_permitted", "Your product does not include this model.", fault{"Invalid ApiKey for given resource", "oauth.v2.InvalidApiKeyForGivenResource"}}
	noPrice      = reason{403, "model_without_price", "Your budget does not cover this model.", fault{"Invalid ApiKey for given resource", "oauth.v2.InvalidApiKeyForGivenResource"}}
	unreadUsage  = reason{403, "usage_not_told", "Your token limit does not cover this operation: its responses do not report token usage.", fault{"Invalid ApiKey for given resource", "oauth.v2.InvalidApiKeyForGivenResource"}}
)

// noStore keeps refusals out of caches: they are about this moment and this caller.
var noStore = [2]string{"cache-control", "no-store"}

// dontRetry keeps clients from trying again at once: OpenAI's for Node ignores a Retry-After of
// more than a minute and retries after half a second.
var dontRetry = [2]string{"x-should-retry", "false"}

// unknown refuses a caller that nobody knows. A message without its full stop goes on with the places for keys.
func (f *Filter) unknown(r reason) filter.Verdict {
	if !strings.HasSuffix(r.message, ".") {
		r.message += f.places.where + "."
	}
	return f.refuse(r)
}

// refuse refuses for a reason.
func (f *Filter) refuse(r reason) filter.Verdict {
	refusal := filter.Refusal{
		Refusal: llm.Refusal{Status: r.status, Type: "invalid_request_error", Code: r.code, Message: r.message},
		Headers: [][2]string{noStore},
	}
	return f.deny(refusal, r.fault)
}

// deny refuses, in Apigee's words if these are asked for.
func (f *Filter) deny(r filter.Refusal, words fault) filter.Verdict {
	if f.apigee {
		r.Body = words.body()
	}
	return filter.Deny(r)
}

func (w fault) body() []byte {
	b := append([]byte(nil), `{"fault":{"faultstring":`...)
	b = llm.AppendString(b, w.text)
	b = append(b, `,"detail":{"errorcode":`...)
	b = llm.AppendString(b, w.code)
	return append(b, `}}}`...)
}

// Faults of limits. Those of a token limit are as the sample shows them, those of requests as
// Apigee's own Quota policy writes them, with two spaces.
var (
	requestsFault = fault{"Rate limit quota violation. Quota limit  exceeded. Identifier : _default", "policies.ratelimit.QuotaViolation"}
	tokensFault   = fault{"Rate limit quota violation. Quota limit exceeded.", "policies.ratelimit.QuotaViolation"}
)

func (l *limit) fault() fault {
	switch {
	case l.measure == spike:
		rate := string(appendInt(nil, l.amount)) + "p" + units[l.window.Unit][:1]
		return fault{"Spike arrest violation. Allowed rate : " + rate, "policies.ratelimit.SpikeArrestViolation"}
	case l.measure.needsUsage():
		return tokensFault
	}
	return requestsFault
}

// overLimit refuses a request that a limit stands in the way of. result says which, and
// for how long.
func (f *Filter) overLimit(x *filter.Exchange, r *request, result account.Result) filter.Verdict {
	l := r.limits[result.At]
	out := filter.Refusal{Refusal: llm.Refusal{Status: 429, Type: l.kind(), Code: "rate_limit_exceeded"}, Reason: l.reason(), Headers: [][2]string{noStore}}
	if l.measure == money {
		out.Type, out.Code = "insufficient_quota", "insufficient_quota"
	}
	if result.Outcome == account.TooLarge {
		out.Code, out.Reason, out.RetryAfter = tooLarge, tooLarge, -1
		out.Message = l.tooLarge(r)
		out.Headers = append(out.Headers, dontRetry)
	} else {
		out.RetryAfter = max(result.Wait, time.Second)
		wait := (out.RetryAfter + time.Second - 1).Truncate(time.Second)
		out.Message = "You have reached your " + l.words() + ". Please try again in " + wait.String() + "."
		if wait > time.Minute {
			out.Headers = append(out.Headers, dontRetry)
		}
	}
	if f.headers {
		for _, h := range f.standing(x, r, result.At) {
			out.Headers = append(out.Headers, [2]string{h.Name, h.Value})
		}
	}
	return f.deny(out, l.fault())
}

// tooLarge says why a request can never be admitted.
func (l *limit) tooLarge(r *request) string {
	switch {
	case l.amount > 0:
		return "Your request needs more than your whole " + l.words() + ". Reduce the prompt or max_tokens."
	case r.product != nil && slices.Contains(r.product.limits, l):
		return "Your product allows no " + measures[l.measure].said + "."
	}
	return "Your limits allow no " + measures[l.measure].said + "."
}

const tooLarge = "request_exceeds_limit"

// kind is the class of the error in OpenAI's terms.
func (l *limit) kind() string {
	if l.measure.needsUsage() {
		return "tokens"
	}
	return "requests"
}

// reason is what x-inlet-reason says.
func (l *limit) reason() string {
	switch {
	case l.measure.tokens():
		return "tokens_limit"
	case l.measure == money:
		return "budget_limit"
	}
	return l.measure.String() + "_limit"
}

// words is the limit in a message.
func (l *limit) words() string {
	if l.measure == money {
		return l.said
	}
	return "limit of " + strconv.FormatInt(l.amount, 10) + " " + l.said
}

// storeFailed refuses while nobody knows what is left.
func (f *Filter) storeFailed() filter.Verdict {
	return f.deny(filter.Refusal{
		Refusal:    llm.Refusal{Status: 503, Type: "server_error", Code: "quota_unavailable", Message: "The gateway cannot tell right now whether your limits permit the request. Please try again."},
		RetryAfter: time.Second,
		Headers:    [][2]string{noStore},
	}, fault{"Service Unavailable", "policies.ratelimit.FailedToResolveQuota"})
}

// busy refuses a request that lost against others, or found no place for a counter: the store is well.
func (f *Filter) busy() filter.Verdict {
	return f.deny(filter.Refusal{
		Refusal:    llm.Refusal{Status: 503, Type: "server_error", Code: "quota_busy", Message: "Too many requests are counted at the same time. Please try again."},
		RetryAfter: time.Second,
		Headers:    [][2]string{noStore},
	}, fault{"Service Unavailable", "policies.ratelimit.FailedToResolveQuota"})
}

func appendInt(dst []byte, n int64) []byte { return strconv.AppendInt(dst, n, 10) }
