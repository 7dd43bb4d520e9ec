package main

import (
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/shared/state/endpoint"
)

// What /metrics serves is what the parser of the Prometheus project reads.
func TestMetricsAgainstExpfmt(t *testing.T) {
	a := newReplica(t)
	llama := filepath.Join(t.TempDir(), "llama.yaml")
	writeEDS(t, llama, a)
	c := startCompanion(t, map[string]string{"llama": llama})
	c.until("gauges", func(s *endpoint.Snapshot) bool { return only(s, "llama", a).Models != nil })
	status, text := c.get("/metrics")
	require.Equal(t, http.StatusOK, status)
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(text))
	require.NoError(t, err)
	require.Greater(t, len(families), 30)
	require.Equal(t, 1.0, families["inference_pool_ready_pods"].Metric[0].Gauge.GetValue())
}
