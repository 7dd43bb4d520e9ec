package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/inlet-proxy/inlet/bench/upstream"
)

// outcome is the result of one request.
type outcome struct {
	status  int
	header  http.Header
	body    []byte
	arrived *upstream.Arrived // nil if no replica got it
}

// send sends one request through a mode and records what arrives.
func (b *bench) send(ctx context.Context, m *mode, method, path string, body []byte, headers map[string]string) (*outcome, error) {
	req, err := http.NewRequestWithContext(ctx, method, m.stack.URL()+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Host = "bench"
	req.Header.Set("content-type", "application/json")
	req.Header.Set(upstream.Record, "1")
	for name, value := range headers {
		req.Header.Set(name, value)
	}
	m.sent++
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = res.Body.Close() }()
	got, err := io.ReadAll(res.Body)
	return &outcome{res.StatusCode, res.Header, got, b.replicas.Arrived()}, err
}

const destination = "x-gateway-destination-endpoint"

// check sends requests of a case until the mode serves correctly, and then checks it: the same bytes reach replica and
// client, and every filter does its work. It returns the size of a response's body.
func (b *bench) check(ctx context.Context, m *mode, c *chatCase) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	headers := map[string]string{"x-api-key": key}
	if c.events > 0 {
		headers[upstream.Events] = strconv.Itoa(c.events)
	}
	body := c.body()
	for good := 0; ; {
		o, err := b.send(ctx, m, http.MethodPost, "/v1/chat/completions", body, headers)
		if err != nil {
			return 0, err
		}
		if m.picks() && good == 0 && o.arrived != nil && o.arrived.Header.Get(destination) == "" {
			continue // the replicas are not known yet
		}
		if err := m.judge(c, body, o); err != nil {
			return 0, err
		}
		if good++; good == 5 {
			return len(o.body), nil
		}
	}
}

// judge returns what is wrong with the result of a request.
func (m *mode) judge(c *chatCase, sent []byte, o *outcome) error {
	if o.status != http.StatusOK || o.arrived == nil {
		return fmt.Errorf("response status %d: %s", o.status, o.body)
	}
	answer := upstream.Completion
	if c.events > 0 {
		answer = upstream.Stream(c.events)
	}
	if c.renamed && m.has("bbr") {
		sent = bytes.Replace(sent, []byte(`"model":"`+c.model+`"`), []byte(`"model":"`+upstream.Model+`"`), 1)
		answer = strings.ReplaceAll(answer, `"model":"`+upstream.Model+`"`, `"model":"`+c.model+`"`)
	}
	h := o.arrived.Header
	list := strings.Split(h.Get(destination), ",")
	switch {
	case !m.same(o.arrived.Body, sent):
		return errors.New("another body reached the replica")
	case !m.same(o.body, []byte(answer)):
		return errors.New("another response reached the client")
	case m.has("quota") == (h.Get("x-api-key") != ""):
		return errors.New("the key check did not work")
	case m.has("bbr") && (h.Get("x-gateway-model-name") != c.model || h.Get("x-gateway-inference-pool") != pool):
		return errors.New("the routing by the body did not work")
	case slices.Contains(m.peers, "bbr") && h.Get("x-gateway-model-name") != c.model:
		return errors.New("the extension's body-based router did not work")
	case m.picks() && list[0] != o.arrived.Address, m.has("picker") && len(list) != 3:
		return fmt.Errorf("picked %v, and %s served", list, o.arrived.Address)
	}
	return nil
}

// picks reports whether something in the mode picks the replica.
func (m *mode) picks() bool { return m.has("picker") || slices.Contains(m.peers, "epp") }

// same reports whether two bodies are the same: byte for byte, except for the extension, which re-encodes JSON.
func (m *mode) same(got, wants []byte) bool {
	if bytes.Equal(got, wants) {
		return true
	}
	var a, b any
	return len(m.peers) > 0 && json.Unmarshal(got, &a) == nil && json.Unmarshal(wants, &b) == nil && reflect.DeepEqual(a, b)
}

// ofEnvoy are request headers that do not depend on the filters: Envoy's own, the framing of the body, and the pick among
// equal replicas.
var ofEnvoy = []string{"X-Request-Id", "X-Envoy-Expected-Rq-Timeout-Ms", "X-Forwarded-For", "Content-Length", "Transfer-Encoding", "X-Gateway-Destination-Endpoint"}

// headersOf writes the headers that arrived, sorted, without those of Envoy.
func headersOf(h http.Header) []string {
	var lines []string
	for name, values := range h {
		if !slices.Contains(ofEnvoy, name) {
			lines = append(lines, name+": "+strings.Join(values, ", "))
		}
	}
	slices.Sort(lines)
	return lines
}
