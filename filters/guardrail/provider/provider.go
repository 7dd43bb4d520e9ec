// Package provider speaks the protocols of services that judge text: it writes a service's request and reads its response.
// It calls nobody; package guardrail does.
package provider

import (
	"strings"

	"github.com/inlet-proxy/inlet/shared/contract/conf"
)

// Question is a text to be judged.
type Question struct {
	// Text is valid UTF-8. It is not changed, and not kept.
	Text []byte
	// Response: the text is of a response. Else it is of a prompt.
	Response bool
	// Prompt is the prompt that a response's text answers, or its end. It may be empty.
	Prompt []byte
	// Role of a prompt's text: "user", "system", "assistant" or "tool"; empty for several.
	Role string
	// Model is the public name of the model that is asked for. It may be empty.
	Model string
}

// Request is what is sent to the service, by POST.
type Request struct {
	Path    string
	Headers [][2]string // besides the content type, which is JSON
	Body    []byte
}

// Verdict is what the service says of a text.
type Verdict struct {
	Blocked bool
	// Redacted: Text is to take the place of the question's text. Never together with Blocked.
	Redacted bool
	Text     string
	// Why names the categories, filters or rails that matched, for the access log and metrics. The words are the service's own,
	// where they are ones that its documentation or the configuration lists; else "other". They never have any of the text.
	Why []string
}

// Failed is the error of a check that failed: the text was not judged, or not by all that should judge it.
type Failed struct {
	Cause Cause
	// Status is the response's, if that is the cause.
	Status int
	// Which names the filters or rails that did not judge, with words as in Verdict.Why.
	Which []string
	// Lasting: the service will say the same again, because the configuration or a credential is wrong. It is not worth a retry, and somebody has to look.
	Lasting bool
}

// Cause is why a check failed, a word for logs and metrics.
type Cause string

// The causes.
const (
	Status     Cause = "status"     // the service refused the request, or is out of order
	Unreadable Cause = "unreadable" // its response has no clear verdict
	Partial    Cause = "partial"    // some of its filters did not judge
	Internal   Cause = "internal"   // it says that it failed
)

// Error has none of the text.
func (f *Failed) Error() string {
	s := "guardrail provider: " + string(f.Cause)
	if f.Status != 0 {
		s += " " + decimal(f.Status)
	}
	if len(f.Which) > 0 {
		s += ": " + strings.Join(f.Which, ", ")
	}
	return s
}

// Provider is one service's protocol. It is immutable.
type Provider interface {
	// Limit is the most bytes that a question's text may have; 0 is no limit. The caller splits a longer text.
	Limit() int
	// Redacts reports whether a verdict can have a text to take the place of the question's.
	Redacts() bool
	// Host is the service's public name, for the :authority of requests unless another one is configured; "" if there is no public one.
	Host() string
	// Ask writes the request.
	Ask(q *Question) Request
	// Read reads the response. An error is a *Failed. Then the verdict is never Blocked, but can be Redacted, if some filters did
	// judge: a caller that goes on after a failure goes on with that text.
	Read(q *Question, status int, body []byte) (Verdict, error)
}

// Protocol is a protocol that can be configured.
type Protocol struct {
	// Name is the key of its object in the configuration.
	Name string
	// Read reads that object, except for the keys of all protocols, "cluster" and "host".
	Read func(o *conf.Object) Provider
}

// Protocols are all protocols.
var Protocols = []Protocol{
	{"modelArmor", readModelArmor},
	{"nemo", readNemo},
	{"moderations", readModerations},
	{"safetyModel", readSafetyModel},
	{"webhook", readWebhook},
}

// other stands for a name that nobody has listed.
const other = "other"

// readLimit reads the most bytes of a text.
func readLimit(o *conf.Object, byDefault int64) int {
	n := byDefault
	o.Size("limit", &n, 256, 1<<20)
	return int(n)
}

// refused is the failure of a response with another status than 200. What the service will not take, or not from us, it will not take the next time.
func refused(status int) *Failed {
	lasting := status >= 300 && status < 500 && status != 408 && status != 425 && status != 429
	return &Failed{Cause: Status, Status: status, Lasting: lasting}
}
