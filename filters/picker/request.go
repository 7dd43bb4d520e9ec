package picker

import (
	"strings"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/inlet-proxy/inlet/filters/picker/scorer"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/reading/llm"
)

// state is what the picker keeps for one request. Its slices are used again by later
// requests of the same exchange object.
type state struct {
	// What is asked.

	input    scorer.Input
	cacheKey uint64   // hash of the model, and of what else keeps caches apart
	chain    []uint64 // a hash for each block of the prompt, and of cacheKey

	snapshotAge time.Duration // how long this proxy has had the snapshot
	peersTrust  float64       // how much the other proxies' counts in it can be believed

	// Who may serve it.

	*pick // only while the replica is chosen

	// Who serves it.

	poolName      string
	sent          []*member // the ranked list
	header        []byte
	why           string
	sentAt        time.Time
	waiting       bool    // for the first byte of the response, or an error
	hitBlocks     int     // blocks of chain that the charged replica had before
	charged       *member // counts the request as in flight; nil if none does
	chargedTokens int64   // and so many tokens of it
	probing       *member // the request is its half-open probe; nil if it is none
	note          []byte  // scratch of report
}

func stateOf(x *filter.Exchange) *state {
	s, ok := x.State().(*state)
	if !ok {
		s = &state{}
		x.SetState(s)
	}
	return s
}

func (s *state) reset() {
	s.chain, s.input = s.chain[:0], scorer.Input{}
	s.poolName, s.why, s.hitBlocks = "", "", 0
	s.charged, s.chargedTokens, s.probing, s.sent = nil, 0, nil, s.sent[:0]
}

// bytesOfToken is how many bytes of text a token has, about.
const bytesOfToken = llm.PrefixBlockBytes / llm.PrefixBlockTokens

// tokensOfRequest is what a request costs besides its prompt: however short that is, a
// response is to be generated.
const tokensOfRequest = 128

// loraField names a LoRA adapter of the model, or lists one for each prompt.
const loraField = "lora_path"

// read takes what matters from the request.
func (s *state) read(f *Filter, x *filter.Exchange) {
	model := x.Route.Target
	if r := x.Request; r != nil {
		if model == "" {
			model = r.Model
		}
		s.input.Tokens = max(int64(r.PromptBytes/bytesOfToken+r.PromptTokens), int64(len(r.Prefix)*llm.PrefixBlockTokens))
		if path := r.Field(loraField); path.Kind == llm.FieldText && len(path.Value) > 0 && !strings.Contains(model, ":") {
			model += ":" + string(path.Value) // one adapter, two ways to ask for it
		}
		// A replica keeps what it computed by model, or LoRA adapter: both are the
		// name that it is asked for.
		s.cacheKey = scorer.Mix(xxhash.Sum64String(model))
		if s.partition(r) {
			for _, block := range r.Prefix {
				s.chain = append(s.chain, scorer.Mix(block^s.cacheKey))
			}
		}
	}
	s.input.Model, s.input.Adapter, s.input.CachedWeight = model, x.Route.Base != "", f.cachedWeight
	if f.needs.Has(scorer.NeedSession) {
		if token, ok := x.RequestHeaders.Get(f.session); ok && token != "" {
			s.input.Session = xxhash.Sum64String(token) | 1
		}
	}
}

// partition adds to the key what else keeps the caches of a replica apart. It reports
// false if that cannot be known: then the prompt is like no other.
func (s *state) partition(r *llm.Request) bool {
	for i, name := range llm.Partitions {
		field := r.Field(name)
		if field.Kind == llm.FieldTooLong || field.Kind == llm.FieldOther {
			return false
		}
		if len(field.Value) > 0 && name != loraField { // that is part of the name
			s.cacheKey = scorer.Mix(s.cacheKey ^ (xxhash.Sum64(field.Value) + uint64(i)))
		}
	}
	return true
}

// charge counts the request as in flight on m, with the tokens that m has to compute
// for it.
func (s *state) charge(m *member, tokens int64) {
	m.load.Add(1)
	m.tokens.Add(tokens)
	s.charged, s.chargedTokens = m, tokens
}

// release undoes charge.
func (s *state) release() {
	s.charged.load.Add(-1)
	s.charged.tokens.Add(-s.chargedTokens)
	s.charged = nil
}
