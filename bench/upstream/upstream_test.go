package upstream

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/require"
)

func TestReplicas(t *testing.T) {
	r, err := Start(3, 50_000)
	require.NoError(t, err)
	defer r.Close()
	require.Len(t, r.Addresses, 3)
	get := func(i int, path string) string {
		res, err := http.Get("http://" + r.Addresses[i] + path)
		require.NoError(t, err)
		defer res.Body.Close()
		text, err := io.ReadAll(res.Body)
		require.NoError(t, err)
		return string(text)
	}
	post := func(i int, body io.Reader, headers ...string) string {
		req, err := http.NewRequest(http.MethodPost, "http://"+r.Addresses[i]+"/v1/chat/completions", body)
		require.NoError(t, err)
		for i := 0; i < len(headers); i += 2 {
			req.Header.Set(headers[i], headers[i+1])
		}
		res, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		defer res.Body.Close()
		text, err := io.ReadAll(res.Body)
		require.NoError(t, err)
		return string(text)
	}

	page := get(2, "/metrics")
	require.InDelta(t, 50_000, len(page), 2_000)
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(page))
	require.NoError(t, err)
	require.Contains(t, families, "vllm:num_requests_running")
	require.NotEqual(t, page, get(2, "/metrics"), "a gauge moves")
	require.Contains(t, get(0, "/v1/models"), Model)

	require.Equal(t, Completion, post(1, strings.NewReader("one"), Record, "1"))
	a := r.Arrived()
	require.Equal(t, "one", string(a.Body))
	require.Equal(t, r.Addresses[1], a.Address)
	require.Nil(t, r.Arrived())

	chunked := io.MultiReader(strings.NewReader("two "), bytes.NewReader(make([]byte, 100_000)))
	require.Equal(t, Stream(3), post(0, chunked, Record, "1", Events, "3"))
	require.Len(t, r.Arrived().Body, 100_004)
	post(0, strings.NewReader("not recorded"))

	require.Equal(t, strings.ReplaceAll(Stream(4), " word", " another one"), post(2, strings.NewReader(""), Events, "4", Text, "another one", Timed, "1"))
	sent := r.Sent()
	require.Len(t, sent, 4)
	require.True(t, sent[0].Before(sent[3]))
	require.Nil(t, r.Sent())
	require.Nil(t, r.Arrived())
}
