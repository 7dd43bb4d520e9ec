package sim_test

import (
	"bufio"
	"errors"
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/tidwall/gjson"

	"github.com/inlet-proxy/inlet/internal/modelsim/engine"
	"github.com/inlet-proxy/inlet/internal/modelsim/sim"
)

func TestParseFault(t *testing.T) {
	for spec, want := range map[string]string{ // what String returns
		"status=503":                         "status=503",
		"delay=200ms":                        "delay=200ms",
		"reset-before-headers":               "reset-before-headers",
		"reset-after=0":                      "reset-after=0",
		" cut-body , no-usage, no-cached":    "cut-body,no-usage,no-cached",
		"hang,delay=1s":                      "delay=1s,hang",
		"silent":                             "silent",
		"silent-after-headers,delay=1s":      "delay=1s,silent-after-headers",
		"queue-full=3":                       "queue-full=3",
		"metrics=off,health=hang,status=500": "status=500,metrics=off,health=hang",
	} {
		f, err := sim.ParseFault(spec)
		require.NoError(t, err, spec)
		require.Equal(t, want, f.String())
		again, err := sim.ParseFault(f.String())
		require.NoError(t, err)
		require.Equal(t, f, again)
	}
	for spec, want := range map[string]string{
		"":               `fault "": unknown fault`,
		"explode":        `fault "explode": unknown fault`,
		"status":         `fault "status": strconv.Atoi: parsing "": invalid syntax`,
		"status=200":     `fault "status=200": must be 400 to 599`,
		"delay=5":        `fault "delay=5": time: missing unit in duration "5"`,
		"delay=-1s":      `fault "delay=-1s": must not be negative`,
		"reset-after=-1": `fault "reset-after=-1": must not be negative`,
		"hang=1":         `fault "hang=1": takes no value`,
		"silent=1":       `fault "silent=1": takes no value`,
		"queue-full":     `fault "queue-full": strconv.Atoi: parsing "": invalid syntax`,
		"queue-full=0":   `fault "queue-full=0": must be at least 1`,
		"hang,":          `fault "": unknown fault`,
		"metrics=slow":   `fault "metrics=slow": must be off or hang`,
	} {
		_, err := sim.ParseFault(spec)
		require.EqualError(t, err, want, spec)
	}
}

// TestFaults shows each fault as a client sees it, requested by header, and as the replica's own fault.
func TestFaults(t *testing.T) {
	stream := `{"model":"m","prompt":"x","stream":true,"max_tokens":8,"stream_options":{"include_usage":true}}`
	whole := `{"model":"m","prompt":"x","max_tokens":8}`
	reset := func(t *testing.T, err error) { require.ErrorIs(t, err, syscall.ECONNRESET) }
	cut := func(t *testing.T, err error) { require.ErrorIs(t, err, io.ErrUnexpectedEOF) }
	fine := func(t *testing.T, err error) { require.NoError(t, err) }
	for _, test := range []struct {
		name, fault, body string
		status            int // 0: no headers arrive
		err               func(*testing.T, error)
		events            int // complete ones that arrive
		answer            func(*testing.T, string)
	}{
		{"status", "status=503", whole, 503, fine, 0, func(t *testing.T, answer string) {
			require.JSONEq(t, `{"error":{"message":"This is a fault on demand.","type":"Service Unavailable","param":null,"code":503}}`, answer)
		}},
		{"unnamed status", "status=499", whole, 499, fine, 0, nil},
		{"reset before headers", "reset-before-headers", whole, 0, reset, 0, nil},
		{"reset after no event", "reset-after=0", stream, 200, reset, 0, nil},
		{"reset after three events", "reset-after=3", stream, 200, reset, 3, nil},
		{"reset after more events than there are", "reset-after=99", stream, 200, reset, 10, nil},
		{"reset in a whole answer", "reset-after=0", whole, 200, reset, 0, nil},
		{"stream cut", "cut-body", stream, 200, cut, 5, nil},
		{"whole answer cut", "cut-body", whole, 200, cut, 0, func(t *testing.T, answer string) {
			require.NotEmpty(t, answer)
			require.False(t, gjson.Valid(answer))
		}},
		{"no usage", "no-usage", whole, 200, fine, 0, func(t *testing.T, answer string) {
			require.True(t, gjson.Valid(answer))
			require.NotContains(t, answer, "usage")
		}},
		{"no usage in a stream", "no-usage", stream, 200, fine, 9, func(t *testing.T, answer string) { require.NotContains(t, answer, "usage") }},
		{"two faults", "no-usage,cut-body", stream, 200, cut, 5, nil},
	} {
		check := func(t *testing.T, server *sim.Server, header string) {
			res, answer, err := call(t, http.MethodPost, server.URL()+"/v1/completions", test.body, header)
			test.err(t, err)
			if test.status == 0 {
				require.Nil(t, res)
				return
			}
			require.Equal(t, test.status, res.StatusCode)
			require.Equal(t, test.events, strings.Count(answer, "\n\n"), answer)
			if test.answer != nil {
				test.answer(t, answer)
			}
		}
		t.Run(test.name+" by header", func(t *testing.T) {
			server := start(t, sim.Config{})
			check(t, server, test.fault)
			res, _ := post(t, server.URL()+"/v1/completions", whole)
			require.Equal(t, http.StatusOK, res.StatusCode, "the next request is fine")
		})
		t.Run(test.name+" by replica", func(t *testing.T) {
			server := start(t, sim.Config{})
			res, answer := post(t, server.URL()+"/admin/fault", test.fault)
			require.Equal(t, http.StatusOK, res.StatusCode)
			require.NotEqual(t, "\n", answer)
			check(t, server, "")
			check(t, server, "")
			_, answer, err := call(t, http.MethodDelete, server.URL()+"/admin/fault", "", "")
			require.NoError(t, err)
			require.Equal(t, "\n", answer)
			res, _ = post(t, server.URL()+"/v1/completions", whole)
			require.Equal(t, http.StatusOK, res.StatusCode)
		})
	}
}

func TestFaultHeaderRefused(t *testing.T) {
	server := start(t, sim.Config{})
	for fault, message := range map[string]string{
		"explode":     `fault "explode": unknown fault`,
		"metrics=off": "metrics and health are faults of the whole replica: POST them to /admin/fault",
	} {
		res, answer, err := call(t, http.MethodPost, server.URL()+"/v1/completions", `{"prompt":"x"}`, fault)
		require.NoError(t, err)
		require.Equal(t, http.StatusBadRequest, res.StatusCode)
		require.Equal(t, message, gjson.Get(answer, "error.message").String())
	}
}

func TestMetricsAndHealthSwitch(t *testing.T) {
	server := start(t, sim.Config{})
	status := func(path string) int {
		res, _, err := call(t, http.MethodGet, server.URL()+path, "", "")
		require.NoError(t, err)
		return res.StatusCode
	}
	post(t, server.URL()+"/admin/fault", "metrics=off")
	require.Equal(t, 503, status("/metrics"))
	require.Equal(t, 200, status("/health"))
	require.Equal(t, 200, status("/v1/models"))
	post(t, server.URL()+"/admin/fault", "health=off")
	require.Equal(t, 200, status("/metrics"))
	require.Equal(t, 503, status("/health"))
	require.Equal(t, 503, status("/ping"))
	post(t, server.URL()+"/admin/fault", "status=500")
	require.Equal(t, 500, status("/v1/models"))
	require.Equal(t, 200, status("/metrics"), "a broken model is still scraped")
	server.ClearFault()
	require.Equal(t, 200, status("/v1/models"))

	post(t, server.URL()+"/admin/fault", "metrics=hang")
	impatient := http.Client{Timeout: 20 * time.Millisecond}
	_, err := impatient.Get(server.URL() + "/metrics")
	var timeout interface{ Timeout() bool }
	require.True(t, errors.As(err, &timeout) && timeout.Timeout(), "%v", err)
}

// TestStreamIsFlushed: the first events are readable while the response continues.
func TestStreamIsFlushed(t *testing.T) {
	server := start(t, sim.Config{Speed: 1, Timing: engine.Timing{PrefillRate: 1e9, ContextTime: time.Hour}})
	res, err := http.Post(server.URL()+"/v1/completions", "application/json", strings.NewReader(`{"prompt":"`+strings.Repeat("x", 4000)+`","stream":true}`))
	require.NoError(t, err)
	defer res.Body.Close()
	line, err := bufio.NewReader(res.Body).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "The", gjson.Get(strings.TrimPrefix(line, "data: "), "choices.0.text").String())
}

// TestSilence: nothing arrives, or nothing after the headers, and the metrics show an idle server.
func TestSilence(t *testing.T) {
	server := start(t, sim.Config{})
	impatient := http.Client{Timeout: 50 * time.Millisecond}
	for fault, headers := range map[string]bool{"silent": false, "silent-after-headers": true} {
		post(t, server.URL()+"/admin/fault", fault)
		res, err := impatient.Post(server.URL()+"/v1/completions", "application/json", strings.NewReader(`{"prompt":"x"}`))
		if !headers {
			require.Error(t, err)
		} else {
			require.NoError(t, err)
			require.Equal(t, http.StatusOK, res.StatusCode)
			require.Equal(t, "text/event-stream", res.Header.Get("Content-Type"))
			got, err := io.ReadAll(res.Body)
			require.Error(t, err)
			require.Empty(t, got)
			res.Body.Close()
		}
		_, metrics, err := call(t, http.MethodGet, server.URL()+"/metrics", "", "")
		require.NoError(t, err)
		require.Regexp(t, `vllm:num_requests_running\{[^}]*\} 0`, metrics)
	}
}

// TestQueueFull: this many requests are refused, then the fault is over.
func TestQueueFull(t *testing.T) {
	server := start(t, sim.Config{})
	status := func(fault string) int {
		res, answer, err := call(t, http.MethodPost, server.URL()+"/v1/completions", `{"prompt":"x"}`, fault)
		require.NoError(t, err)
		if res.StatusCode != http.StatusOK {
			require.Equal(t, "The request queue is full.", gjson.Get(answer, "error.message").String())
		}
		return res.StatusCode
	}
	require.Equal(t, 503, status("queue-full=1"))
	require.Equal(t, 503, status("queue-full=1"), "by header always")
	for range 2 {
		post(t, server.URL()+"/admin/fault", "queue-full=3")
		res, _, err := call(t, http.MethodGet, server.URL()+"/v1/models", "", "")
		require.NoError(t, err)
		require.Equal(t, 200, res.StatusCode, "a list of models waits in no queue, and is none of the three")
		require.Equal(t, []int{503, 503, 503, 200}, []int{status(""), status(""), status(""), status("")})
	}
}
