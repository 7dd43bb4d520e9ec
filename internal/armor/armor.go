// Package armor is a fake of Google Cloud Model Armor for tests. It reads requests and writes responses with the types that Google
// publishes, so that a field's wrong name fails.
package armor

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	pb "cloud.google.com/go/modelarmor/apiv1/modelarmorpb"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// Request is what was asked.
type Request struct {
	Template string
	Response bool
	Text     string
	Prompt   string // that the response answers
}

const (
	ofPrompt   = ":sanitizeUserPrompt"
	ofResponse = ":sanitizeModelResponse"
)

// Parse reads a request. Members that Google's types do not have are an error.
func Parse(path string, body []byte) (Request, error) {
	name, found := strings.CutPrefix(path, "/v1/")
	if !found {
		return Request{}, fmt.Errorf("there is no %s", path)
	}
	if template, found := strings.CutSuffix(name, ofPrompt); found {
		var r pb.SanitizeUserPromptRequest
		if err := protojson.Unmarshal(body, &r); err != nil {
			return Request{}, err
		}
		return Request{Template: template, Text: r.GetUserPromptData().GetText()}, nil
	}
	if template, found := strings.CutSuffix(name, ofResponse); found {
		var r pb.SanitizeModelResponseRequest
		if err := protojson.Unmarshal(body, &r); err != nil {
			return Request{}, err
		}
		return Request{Template: template, Response: true, Text: r.GetModelResponseData().GetText(), Prompt: r.GetUserPrompt()}, nil
	}
	return Request{}, fmt.Errorf("there is no %s", path)
}

// Verdict is the body of a response with a result.
func Verdict(result *pb.SanitizationResult) []byte {
	body, err := protojson.Marshal(&pb.SanitizeUserPromptResponse{SanitizationResult: result})
	if err != nil {
		panic(err) // a test has put something into it that is not UTF-8
	}
	var compact bytes.Buffer // protojson writes spaces at random
	if err := json.Compact(&compact, body); err != nil {
		panic(err)
	}
	return compact.Bytes()
}

// Result is the result of filters that have all run.
func Result(filters map[string]*pb.FilterResult) *pb.SanitizationResult {
	r := &pb.SanitizationResult{FilterMatchState: None, InvocationResult: pb.InvocationResult_SUCCESS, FilterResults: filters}
	for _, f := range filters {
		if matched(f) {
			r.FilterMatchState = Match
		}
	}
	return r
}

// The states of results, in short.
const (
	None    = pb.FilterMatchState_NO_MATCH_FOUND
	Match   = pb.FilterMatchState_MATCH_FOUND
	Ran     = pb.FilterExecutionState_EXECUTION_SUCCESS
	Skipped = pb.FilterExecutionState_EXECUTION_SKIPPED
)

func matched(m proto.Message) bool {
	return strings.Contains(protojson.Format(m), `"MATCH_FOUND"`)
}

// Clean is the result of a text in which no filter of a template with all of them found anything.
func Clean() map[string]*pb.FilterResult {
	return map[string]*pb.FilterResult{
		"csam":             Csam(Ran, None),
		"malicious_uris":   URIs(Ran, None),
		"pi_and_jailbreak": Injection(Ran, None),
		"rai":              Rai(Ran, nil),
		"sdp":              Inspected(Ran, None),
	}
}

// With is Clean but for one filter.
func With(name string, f *pb.FilterResult) map[string]*pb.FilterResult {
	all := Clean()
	all[name] = f
	return all
}

// Csam is the result of the filter for child abuse.
func Csam(ran pb.FilterExecutionState, m pb.FilterMatchState) *pb.FilterResult {
	return &pb.FilterResult{FilterResult: &pb.FilterResult_CsamFilterFilterResult{CsamFilterFilterResult: &pb.CsamFilterResult{ExecutionState: ran, MatchState: m}}}
}

// URIs is the result of the filter for malicious URIs.
func URIs(ran pb.FilterExecutionState, m pb.FilterMatchState) *pb.FilterResult {
	return &pb.FilterResult{FilterResult: &pb.FilterResult_MaliciousUriFilterResult{MaliciousUriFilterResult: &pb.MaliciousUriFilterResult{ExecutionState: ran, MatchState: m}}}
}

// Injection is the result of the filter for injections and jailbreaks.
func Injection(ran pb.FilterExecutionState, m pb.FilterMatchState) *pb.FilterResult {
	return &pb.FilterResult{FilterResult: &pb.FilterResult_PiAndJailbreakFilterResult{PiAndJailbreakFilterResult: &pb.PiAndJailbreakFilterResult{ExecutionState: ran, MatchState: m}}}
}

// Virus is the result of the scan for viruses.
func Virus(ran pb.FilterExecutionState, m pb.FilterMatchState) *pb.FilterResult {
	return &pb.FilterResult{FilterResult: &pb.FilterResult_VirusScanFilterResult{VirusScanFilterResult: &pb.VirusScanFilterResult{ExecutionState: ran, MatchState: m}}}
}

// Rai is the result of the filter for responsible AI, with the types that matched.
func Rai(ran pb.FilterExecutionState, types []string) *pb.FilterResult {
	r := &pb.RaiFilterResult{ExecutionState: ran, MatchState: None, RaiFilterTypeResults: map[string]*pb.RaiFilterResult_RaiFilterTypeResult{}}
	for _, name := range []string{"sexually_explicit", "hate_speech", "harassment", "dangerous"} {
		r.RaiFilterTypeResults[name] = &pb.RaiFilterResult_RaiFilterTypeResult{MatchState: None}
	}
	for _, name := range types {
		r.MatchState = Match
		r.RaiFilterTypeResults[name] = &pb.RaiFilterResult_RaiFilterTypeResult{MatchState: Match, ConfidenceLevel: pb.DetectionConfidenceLevel_HIGH}
	}
	return &pb.FilterResult{FilterResult: &pb.FilterResult_RaiFilterResult{RaiFilterResult: r}}
}

// Inspected is the result of the filter for sensitive data with an inspection template.
func Inspected(ran pb.FilterExecutionState, m pb.FilterMatchState) *pb.FilterResult {
	r := &pb.SdpInspectResult{ExecutionState: ran, MatchState: m}
	if m == Match {
		r.Findings = []*pb.SdpFinding{{InfoType: "EMAIL_ADDRESS", Likelihood: pb.SdpFindingLikelihood_VERY_LIKELY}}
	}
	return sdp(&pb.SdpFilterResult{Result: &pb.SdpFilterResult_InspectResult{InspectResult: r}})
}

// Deidentified is the result of the filter for sensitive data with a template that takes them out.
func Deidentified(ran pb.FilterExecutionState, m pb.FilterMatchState, text string) *pb.FilterResult {
	return sdp(&pb.SdpFilterResult{Result: &pb.SdpFilterResult_DeidentifyResult{DeidentifyResult: &pb.SdpDeidentifyResult{
		ExecutionState: ran, MatchState: m, TransformedBytes: 16, InfoTypes: []string{"EMAIL_ADDRESS"},
		Data: &pb.DataItem{DataItem: &pb.DataItem_Text{Text: text}},
	}}})
}

func sdp(r *pb.SdpFilterResult) *pb.FilterResult {
	return &pb.FilterResult{FilterResult: &pb.FilterResult_SdpFilterResult{SdpFilterResult: r}}
}

// Answer is a response of the fake.
type Answer struct {
	Status int // 0: 200
	Body   []byte
	// After is how long it takes to the first byte; Slow is how long to the last one.
	After, Slow time.Duration
	Cut         bool // the connection ends within the body
	Never       bool // it never comes
}

// Server is the fake. It answers what Judge says.
type Server struct {
	// Judge may be called by several goroutines at once.
	Judge func(Request) Answer

	mu       sync.Mutex
	requests []Request
	wrong    error
}

// Requests returns what was asked so far, and what was wrong with it.
func (s *Server) Requests() ([]Request, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Request(nil), s.requests...), s.wrong
}

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the client has gone
	}
	asked, err := Parse(r.URL.Path, body)
	if err == nil && (r.Method != http.MethodPost || r.Header.Get("content-type") != "application/json") {
		err = errors.New("not a POST of JSON")
	}
	s.mu.Lock()
	s.requests = append(s.requests, asked)
	s.wrong = errors.Join(s.wrong, err)
	s.mu.Unlock()
	w.Header().Set("content-type", "application/json")
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		_, _ = io.WriteString(w, `{"error":{"code":400,"message":"Invalid JSON payload received.","status":"INVALID_ARGUMENT"}}`)
		return
	}
	s.Judge(asked).write(w, r)
}

// write sends the answer. It stops when the client has gone.
func (a Answer) write(w http.ResponseWriter, r *http.Request) {
	if a.Never {
		<-r.Context().Done()
		return
	}
	if !wait(r, a.After) {
		return
	}
	if a.Status == 0 {
		a.Status = http.StatusOK
	}
	w.Header().Set("content-length", fmt.Sprint(len(a.Body)))
	w.WriteHeader(a.Status)
	half := len(a.Body) / 2
	if a.Slow > 0 || a.Cut {
		_, _ = w.Write(a.Body[:half])
		_ = http.NewResponseController(w).Flush()
		if a.Cut {
			panic(http.ErrAbortHandler)
		}
		if !wait(r, a.Slow) {
			return
		}
		a.Body = a.Body[half:]
	}
	_, _ = w.Write(a.Body)
}

// wait reports whether the client was still there after a time.
func wait(r *http.Request, d time.Duration) bool {
	if d == 0 {
		return true
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-r.Context().Done():
		return false
	}
}
