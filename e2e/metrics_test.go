package e2e_test

import (
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/e2e/stack"
)

// testSameRequests sends requests that end in each of the ways that metrics
// distinguish, and returns the series that these created.
func testSameRequests(t *testing.T, s *stack.Stack) []string {
	before, err := s.Metrics(t.Context())
	require.NoError(t, err)
	for _, request := range []struct {
		path, body string
		status     int
	}{
		{chatPath, smallChat, http.StatusOK},
		{chatPath, strings.Replace(smallChat, "{", `{"stream":true,"stream_options":{"include_usage":true},`, 1), http.StatusOK},
		{"/v1/completions", `{"model":"gemma","prompt":"hello"}`, http.StatusOK},
		{"/v1/embeddings", `{"model":"gemma-support","input":"hello"}`, http.StatusOK},
		{chatPath, `{"model":"gpt-9"}`, http.StatusNotFound},
		{chatPath, `{"model":"llama",}`, http.StatusBadRequest},
		{chatPath, `{"model":"llama","messages":1}`, http.StatusBadRequest},
	} {
		a := post(t.Context(), s, request.path, request.body)
		require.NoError(t, a.err)
		require.Equal(t, request.status, a.status, "%s: %s", request.body, a.body)
	}
	var m stack.Metrics
	eventually(t, "histograms are merged", func() (bool, error) {
		var err error
		m, err = s.Metrics(t.Context())
		return m.Sum("inlet_request_duration_ms_count", "model_name", "gemma-support") == 1, err
	})
	return shapes(before, m)
}

// sampled are the metrics that measure only some requests, chosen at random.
var sampled = []string{"inlet_body_scan_us", "inlet_body_edit_us"}

// testTimed: some of ten thousand requests were measured.
func testTimed(t *testing.T, s *stack.Stack) {
	for _, name := range sampled {
		eventually(t, name+" has samples", func() (bool, error) {
			m, err := s.Metrics(t.Context())
			return m.Sum(name+"_count") > 100 && m.Sum(name+"_sum") > 0, err
		})
	}
}

// shapes are the series of Inlet's metrics that appeared or changed between two
// scrapes, without their values. A histogram is one of them.
func shapes(before, after stack.Metrics) []string {
	was := map[string]float64{}
	for _, sample := range before {
		was[shape(sample, true)] = sample.Value
	}
	all := map[string]bool{}
	for _, sample := range after {
		value, known := was[shape(sample, true)]
		if slices.Contains(sampled, shape(stack.Sample{Name: sample.Name}, false)) {
			continue
		}
		if strings.HasPrefix(sample.Name, "inlet_") && (!known || value != sample.Value) {
			all[shape(sample, false)] = true
		}
	}
	return slices.Sorted(maps.Keys(all))
}

// shape is a sample's name and labels; for a histogram, the histogram's.
func shape(sample stack.Sample, exact bool) string {
	name := sample.Name
	if !exact {
		for _, part := range []string{"_bucket", "_sum", "_count"} {
			name = strings.TrimSuffix(name, part)
		}
	}
	for _, label := range slices.Sorted(maps.Keys(sample.Labels)) {
		if exact || label != "le" {
			name += " " + label + "=" + sample.Labels[label]
		}
	}
	return name
}
