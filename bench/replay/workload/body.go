package workload

import (
	"fmt"
	"strconv"

	"github.com/inlet-proxy/inlet/shared/reading/jsonscan"
	"github.com/inlet-proxy/inlet/shared/reading/llm"
)

// Model is the model's name in all requests.
const Model = "llama"

// saltField is vLLM's member that separates a tenant's cache from others.
const saltField = "cache_salt"

// AppendBody appends the request as a client sends it: a streaming chat completion, with one message whose text is that
// of the blocks.
func (w *Workload) AppendBody(dst []byte, r *Request) []byte {
	dst = append(dst, `{"model":"`+Model+`","stream":true,"stream_options":{"include_usage":true},"max_tokens":`...)
	dst = strconv.AppendInt(dst, int64(r.Output), 10)
	dst = append(dst, salt(r.Tenant)...)
	dst = append(dst, `,"messages":[{"role":"user","content":"`...)
	for i, id := range r.Blocks {
		dst = appendText(dst, uint64(id), min(w.BlockTokens, r.Input-i*w.BlockTokens))
	}
	return append(dst, `"}]}`...)
}

// salt is the member that separates tenants. The first tenant has none.
func salt(tenant int) string {
	if tenant == 0 {
		return ""
	}
	return fmt.Sprintf(`,"%s":"tenant-%d"`, saltField, tenant)
}

// appendText appends the text of a block: words of three letters and a space, from a generator whose seed is the id
// (splitmix64, Steele, Lea and Flood 2014).
func appendText(dst []byte, id uint64, tokens int) []byte {
	const letters = "abcdefghijklmnopqrstuvwxyz012345"
	state := id * 0xd1342543de82ef95
	var random uint64
	for i := range tokens {
		if i%4 == 0 {
			state += 0x9e3779b97f4a7c15
			random = state
			random = (random ^ random>>30) * 0xbf58476d1ce4e5b9
			random = (random ^ random>>27) * 0x94d049bb133111eb
			random ^= random >> 31
		}
		dst = append(dst, letters[random&31], letters[random>>5&31], letters[random>>10&31], ' ')
		random >>= 15
	}
	return dst
}

// facts is what the scanner read of a request's prompt.
type facts struct {
	bytes  int
	prefix []uint64
}

// Scan makes the bodies and reads each with the scanner that reads requests inside Envoy. Its result for a prompt depends
// only on the prompt, so copies are read once; workloads derived from this one have been scanned too.
func (w *Workload) Scan() error {
	if w.lines != nil {
		return nil
	}
	var s llm.RequestScanner
	var body []byte
	lines := 0
	for i := range w.Requests {
		lines = max(lines, w.Requests[i].line+1)
	}
	w.lines = make([]facts, lines)
	for i := range w.Requests {
		r := &w.Requests[i]
		if w.lines[r.line].prefix != nil {
			continue
		}
		body = w.AppendBody(body[:0], r)
		q, err := scan(&s, body)
		if err != nil {
			return fmt.Errorf("request %d: %w", i+1, err)
		}
		w.lines[r.line] = facts{q.PromptBytes, append([]uint64{}, q.Prefix...)}
	}
	return nil
}

func scan(s *llm.RequestScanner, body []byte) (*llm.Request, error) {
	want := llm.Want{Fields: []string{saltField}, PrefixBlocks: llm.DefaultPrefixBlocks}
	s.Reset(llm.Chat, want, jsonscan.Limits{})
	if err := s.Feed(body); err != nil {
		return nil, err
	}
	return s.Request(), s.End()
}

// Reader returns the facts of requests as the chain has them after reading the body.
type Reader struct {
	w       *Workload
	tenants map[int]*llm.Request
}

// Reader returns a reader of the facts; the workload has been scanned.
func (w *Workload) Reader() *Reader { return &Reader{w, map[int]*llm.Request{}} }

// Facts returns the facts of a request. The caller must not change the hashes.
func (f *Reader) Facts(r *Request) (*llm.Request, error) {
	tenant := f.tenants[r.Tenant]
	if tenant == nil {
		// Everything but the prompt, from a body without one.
		var err error
		if tenant, err = scan(new(llm.RequestScanner), []byte(`{"model":"`+Model+`","stream":true,"stream_options":{"include_usage":true}`+salt(r.Tenant)+`}`)); err != nil {
			return nil, err
		}
		f.tenants[r.Tenant] = tenant
	}
	q, line := *tenant, &f.w.lines[r.line]
	q.PromptBytes, q.Prefix, q.MaxTokens = line.bytes, line.prefix, r.Output
	return &q, nil
}
