package e2e_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/e2e/stack"
)

const (
	mixedRequests = 10_000
	mixedClients  = 16
)

// testMixed: for every kind of request, every body arrives byte for byte except for
// the model's name, each request reaches its pool, the response has the requested
// name, and nothing stays in flight.
func testMixed(t *testing.T, s *stack.Stack) {
	before, err := s.Metrics(t.Context())
	require.NoError(t, err)
	var next, refused, answered atomic.Int64
	var all sync.WaitGroup
	wrong := make(chan error, mixedRequests)
	for range mixedClients {
		all.Go(func() {
			for n := next.Add(1); n <= mixedRequests; n = next.Add(1) {
				m := mix(uint64(n))
				if err := m.play(t.Context(), s); err != nil {
					wrong <- fmt.Errorf("request %d (%s): %w", n, m, err)
				}
				switch {
				case m.leaves:
				case m.status == http.StatusOK:
					answered.Add(1)
				default:
					refused.Add(1)
				}
			}
		})
	}
	finished := make(chan struct{})
	go func() { all.Wait(); close(finished) }()
	watchInFlight(t, s, finished)
	close(wrong)
	for err := range wrong {
		t.Error(err)
	}

	after := waitForNoneInFlight(t, s)
	grown := func(outcome string) int64 {
		return int64(after.Sum("inlet_request_total", "outcome", outcome) - before.Sum("inlet_request_total", "outcome", outcome))
	}
	require.Equal(t, refused.Load(), grown("refused"))
	require.GreaterOrEqual(t, grown("ok"), answered.Load())
	require.Positive(t, grown("aborted"))
	require.Zero(t, grown("server_error"))
	require.Zero(t, grown("client_error"))
}

// inFlight are the gauge's values by pool; they must never be out of bounds.
func inFlight(t *testing.T, m stack.Metrics) (sum float64) {
	t.Helper()
	for _, sample := range m {
		if sample.Name == "inlet_in_flight_requests" {
			require.GreaterOrEqual(t, sample.Value, 0.0, "%+v", sample)
			require.LessOrEqual(t, sample.Value, 2.0*mixedClients, "%+v", sample) // Envoy's gauges wrap below zero
			sum += sample.Value
		}
	}
	return sum
}

// watchInFlight scrapes until the requests are finished.
func watchInFlight(t *testing.T, s *stack.Stack, finished <-chan struct{}) {
	t.Helper()
	for most := 0.0; ; {
		m, err := s.Metrics(t.Context())
		require.NoError(t, err)
		most = max(most, inFlight(t, m))
		select {
		case <-finished:
			require.Positive(t, most, "the gauge never showed a request")
			return
		default:
		}
	}
}

func waitForNoneInFlight(t *testing.T, s *stack.Stack) (m stack.Metrics) {
	t.Helper()
	eventually(t, "no request is in flight any more", func() (bool, error) {
		var err error
		m, err = s.Metrics(t.Context())
		return err == nil && inFlight(t, m) == 0 && m.Sum("envoy_http_downstream_rq_active", "envoy_http_conn_manager_prefix", "gateway") == 0, err
	})
	return m
}

// mixed is one of many requests.
type mixed struct {
	path, pool string
	model      string // the requested name, which the response must have
	sent, want string // the body as sent, and as it must arrive
	stream     bool
	chunked    bool
	forged     bool
	leaves     bool // the client goes away at some point
	cut        int  // bytes that it sends before; all if beyond the end
	status     int
	code       string // of the error
}

func (m *mixed) String() string {
	return fmt.Sprintf("%s, %d bytes, chunked %t, forged %t, leaves %t", m.path, len(m.sent), m.chunked, m.forged, m.leaves)
}

// mix makes request n; the same for every n, whatever else happens.
func mix(n uint64) *mixed {
	r := rand.New(rand.NewPCG(n, 0))
	m := &mixed{status: http.StatusOK, chunked: r.IntN(3) == 0, forged: r.IntN(4) == 0}
	// From 200 B to 300 KB, each order of magnitude equally often.
	text := strings.Repeat("word ", int(200*math.Pow(1500, r.Float64()))/5)
	content := ""
	switch r.IntN(10) {
	case 0, 1, 2, 3:
		m.path, content = chatPath, `"messages":[{"role":"system","content":"é \u00e9 \"quoted\""},{"role":"user","content":"`+text+`"}],"max_tokens":3`
	case 4, 5:
		m.path, m.stream = chatPath, true
		content = `"stream":true,"messages":[{"role":"user","content":"` + text + `"}],"max_tokens":5`
	case 6, 7:
		m.path, content = "/v1/completions", `"prompt":"`+text+`","max_tokens":3`
	default:
		m.path, content = "/v1/embeddings", `"input":["`+text+`","b"]`
	}
	model, target := "llama", "llama-3-8b"
	m.pool = "llama"
	if r.IntN(3) == 0 {
		model = []string{"gemma", "gemma-support"}[r.IntN(2)]
		target, m.pool = model, "gemma"
	}
	m.model = model
	form := []string{`{"model":%q,` + content + `}`, `{` + content + `, "model" : %q}`, "{\n \"seed\": 12345678901234567890,\"model\":\t%q ,\n" + content + "}\n"}[r.IntN(3)]
	m.sent = strings.Replace(form, "%q", `"`+model+`"`, 1)
	m.want = strings.Replace(form, "%q", `"`+target+`"`, 1)
	switch r.IntN(25) {
	case 0:
		m.sent, m.status, m.code = m.sent[:len(m.sent)-2]+"]", http.StatusBadRequest, "invalid_json"
	case 1:
		m.sent, m.status, m.code = strings.Replace(form, "%q", `"gpt-9"`, 1), http.StatusNotFound, "model_not_found"
	case 2:
		m.leaves, m.cut = true, r.IntN(len(m.sent)*3/2)
	}
	return m
}

// play sends the request and returns what is wrong with the result.
func (m *mixed) play(ctx context.Context, s *stack.Stack) error {
	ctx, leave := context.WithCancel(ctx)
	defer leave()
	var body io.Reader = strings.NewReader(m.sent)
	if m.leaves {
		body = io.MultiReader(strings.NewReader(m.sent[:min(m.cut, len(m.sent))]), &leaver{leave})
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.URL()+m.path, body)
	if err != nil {
		return err
	}
	req.ContentLength = int64(len(m.sent))
	if m.chunked {
		req.ContentLength = -1
	}
	req.Header.Set("content-type", "application/json")
	if m.forged {
		headers := forged("192.0.2.1:9")
		for i := 0; i < len(headers); i += 2 {
			req.Header.Set(headers[i], headers[i+1])
		}
	}
	a := do(req)
	if m.leaves {
		return nil
	}
	return m.check(&a)
}

// leaver is the end of a body at which the client leaves.
type leaver struct{ leave func() }

func (l *leaver) Read([]byte) (int, error) {
	l.leave()
	return 0, errors.New("the client has gone")
}

// check compares a response with the request.
func (m *mixed) check(a *answer) error {
	switch {
	case a.err != nil:
		return a.err
	case a.status != m.status:
		return fmt.Errorf("status %d, want %d: %.300s", a.status, m.status, a.body)
	case m.code != "":
		if !bytes.Contains(a.body, []byte(`"code":"`+m.code+`"`)) {
			return fmt.Errorf("want an error with code %s: %s", m.code, a.body)
		}
		return nil
	}
	sum := sha256.Sum256([]byte(m.want))
	if got := a.header.Get("x-modelsim-body-sha256"); got != hex.EncodeToString(sum[:]) {
		return fmt.Errorf("another body arrived: %s bytes, want %d", a.header.Get("x-modelsim-body-bytes"), len(m.want))
	}
	if got := a.header.Get("x-modelsim-body-bytes"); got != strconv.Itoa(len(m.want)) {
		return fmt.Errorf("%s bytes arrived, want %d", got, len(m.want))
	}
	if got := a.header.Get("x-modelsim-replica"); !strings.HasPrefix(got, m.pool+"-") {
		return fmt.Errorf("replica %s, want one of %s", got, m.pool)
	}
	arrived := a.header.Get("x-modelsim-headers")
	for _, name := range []string{"-subset", "-served", "x-llm-d-"} {
		if strings.Contains(arrived, name) {
			return fmt.Errorf("a control header of the client arrived: %s", arrived)
		}
	}
	// That it is an adapter is learned from the replicas.
	if adapter := m.model == "gemma-support"; strings.Contains(arrived, "x-gateway-base-model-name") != adapter {
		return fmt.Errorf("an adapter: %t; arrived: %s", adapter, arrived)
	}
	if n, all := bytes.Count(a.body, []byte(`"model":"`+m.model+`"`)), bytes.Count(a.body, []byte(`"model":`)); n == 0 || n != all {
		return fmt.Errorf("%d of %d names in the response are %s: %.300s", n, all, m.model, a.body)
	}
	if m.stream && !bytes.HasSuffix(a.body, []byte("data: [DONE]\n\n")) {
		return fmt.Errorf("the stream has no end: %.300s", a.body)
	}
	return nil
}
