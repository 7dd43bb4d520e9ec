package e2e_test

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	wasmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/wasm/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/inlet-proxy/inlet/e2e/stack"
)

// To measure: go test ./e2e -run TestUpdates -v -count 1 -updates 24 [-drain 600s] [-plugin another.wasm].
var (
	updatesFlag = flag.Int("updates", 12, "TestUpdates: how many documents follow the first")
	drainFlag   = flag.Duration("drain", 10*time.Second, "TestUpdates: Envoy's drain time; its end is waited for after the last update, if it is below a minute")
	pluginFlag  = flag.String("plugin", "", "TestUpdates: measure this .wasm file in turn with that of this tree")
)

// documentOf is version n of a document of 2,000 models: in it "llama" is served as "version-n".
func documentOf(n int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "filters:\n  - bbr:\n      models:\n        - {name: llama, targets: [{model: version-%d, pool: llama}]}\n", n)
	for i := range 2000 {
		fmt.Fprintf(&b, "        - {name: team-%d-model-%d, targets: [{model: served-%d, pool: llama, weight: 90}, {model: next-%d-%d, pool: llama, weight: 10}]}\n",
			i%50, i, i, n, i)
	}
	b.WriteString("  - picker: {}\ncompanion: {cluster: inlet-companion}\n")
	return b.String()
}

// TestUpdates changes a document of 2,000 models again and again while requests come. Each change comes into force, no
// request fails, and Envoy's memory stays where the first few documents brought it.
func TestUpdates(t *testing.T) {
	for way, start := range map[string]func(t *testing.T, plugin string) *updated{
		"by its listener": updatedByListener, "by itself": updatedByFilter,
	} {
		t.Run(way, func(t *testing.T) {
			all := []*updated{start(t, "")}
			if *pluginFlag != "" {
				all = append(all, start(t, *pluginFlag))
			}
			for n := 1; n <= *updatesFlag; n++ {
				for _, u := range all {
					u.update(n)
				}
			}
			for _, u := range all {
				u.end()
			}
		})
	}
}

// updated is an Envoy whose document changes under load.
type updated struct {
	t      *testing.T
	s      *stack.Stack
	change func(n int) time.Time // puts document n in its place and says when
	drains bool                  // a change drains the connections that there are
	stop   context.CancelFunc
	all    sync.WaitGroup

	mu       sync.Mutex
	answers  []versioned
	figures  strings.Builder
	resident []float64 // MB after each update
}

// versioned is an answer and the version of the document by which it came.
type versioned struct {
	began, ended time.Time
	version      int
	fresh        bool // on a connection of its own
	err          error
}

func startUpdated(t *testing.T, o stack.Options) *updated {
	o.NoCompanion, o.Drain = false, *drainFlag
	o.Chain, o.Pools = documentOf(0), []stack.Pool{{Name: "llama", Replicas: 1, Args: []string{"--speed", "2"}}}
	s := stack.ForTest(t, o)
	ctx, stop := context.WithCancel(t.Context())
	u := &updated{t: t, s: s, stop: stop}
	t.Cleanup(func() { stop(); u.all.Wait() })
	for _, fresh := range []bool{true, true, false, false} {
		transport := &http.Transport{DisableKeepAlives: fresh}
		t.Cleanup(transport.CloseIdleConnections)
		u.all.Go(func() {
			for ctx.Err() == nil {
				u.ask(transport, fresh)
			}
		})
	}
	u.wait("first document", 0)
	u.note(0, time.Now())
	return u
}

// updatedByListener changes the document as part of its listener, as LDS does.
func updatedByListener(t *testing.T, plugin string) *updated {
	u := startUpdated(t, stack.Options{Plugin: plugin, Updatable: true})
	u.drains = true
	u.change = func(n int) time.Time {
		require.NoError(t, u.s.Update(t.Context(), func(o *stack.Options) { o.Chain = documentOf(n) }))
		file, err := os.Stat(filepath.Join(u.s.Dir, "lds", "lds.json"))
		require.NoError(t, err)
		return file.ModTime()
	}
	return u
}

// updatedByFilter changes the configuration of the filter alone, as ECDS does.
func updatedByFilter(t *testing.T, plugin string) *updated {
	file := filepath.Join(t.TempDir(), "inlet", "ecds.json")
	var config *anypb.Any
	write := func(document string) time.Time {
		editAny(config, func(w *wasmv3.Wasm) {
			editAny(w.GetConfig().GetConfiguration(), func(v *wrapperspb.StringValue) { v.Value = document })
		})
		require.NoError(t, writeDiscovery(file, &corev3.TypedExtensionConfig{Name: "inlet", TypedConfig: config}))
		return time.Now()
	}
	u := startUpdated(t, stack.Options{Plugin: plugin, Edit: func(b *bootstrapv3.Bootstrap) {
		editManager(b, func(m *hcmv3.HttpConnectionManager) {
			f := inletFilter(m)
			config = f.GetTypedConfig()
			f.ConfigType = &hcmv3.HttpFilter_ConfigDiscovery{ConfigDiscovery: &corev3.ExtensionConfigSource{
				ConfigSource: &corev3.ConfigSource{ConfigSourceSpecifier: &corev3.ConfigSource_PathConfigSource{
					PathConfigSource: &corev3.PathConfigSource{Path: file, WatchedDirectory: &corev3.WatchedDirectory{Path: filepath.Dir(file)}},
				}},
				TypeUrls: []string{config.GetTypeUrl()},
			}}
		})
		write(documentOf(0))
	}})
	u.change = func(n int) time.Time { return write(documentOf(n)) }
	return u
}

// writeDiscovery moves a file of one resource into its place.
func writeDiscovery(file string, resource proto.Message) error {
	packed, err := anypb.New(resource)
	if err != nil {
		return err
	}
	text, err := protojson.Marshal(&discoveryv3.DiscoveryResponse{Resources: []*anypb.Any{packed}})
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	next := filepath.Dir(file) + ".next" // beside the folder that Envoy watches
	if err := os.WriteFile(next, text, 0o600); err != nil {
		return err
	}
	return os.Rename(next, file)
}

// ask sends one request.
func (u *updated) ask(transport *http.Transport, fresh bool) {
	v := versioned{began: time.Now(), fresh: fresh}
	var resp *http.Response
	client := &http.Client{Transport: transport, Timeout: patience}
	resp, v.err = client.Post(u.s.URL()+chatPath, "application/json", strings.NewReader(smallChat))
	if v.err == nil {
		_, v.err = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		if v.err == nil && resp.StatusCode != http.StatusOK {
			v.err = fmt.Errorf("status %s", resp.Status)
		}
	}
	v.ended = time.Now()
	if v.err == nil {
		v.version, v.err = strconv.Atoi(strings.TrimPrefix(resp.Header.Get("x-modelsim-model"), "version-"))
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.answers = append(u.answers, v)
}

// since are the answers that ended after a time, in order of their ends.
func (u *updated) since(t time.Time) []versioned {
	u.mu.Lock()
	defer u.mu.Unlock()
	i := len(u.answers)
	for i > 0 && u.answers[i-1].ended.After(t) {
		i--
	}
	return slices.Clone(u.answers[i:])
}

// wait waits until new connections have had nothing but version n for a while, which so many connections go to all workers.
func (u *updated) wait(what string, n int) {
	u.t.Helper()
	began := time.Now()
	eventually(u.t, what+" is in force", func() (bool, error) {
		same := 0
		for _, v := range slices.Backward(u.since(began)) {
			if v.fresh && v.version != n {
				break
			}
			if v.fresh {
				same++
			}
		}
		return same >= 40, nil
	})
}

// update puts document n in force and notes what it took.
func (u *updated) update(n int) {
	u.t.Helper()
	moved := u.change(n)
	u.wait(fmt.Sprintf("document %d", n), n)
	if n == *updatesFlag && u.drains && *drainFlag < time.Minute {
		eventually(u.t, "the documents before are gone", func() (bool, error) {
			m, err := u.s.Metrics(u.t.Context())
			return m.Sum("envoy_listener_manager_total_filter_chains_draining") == 0, err
		})
		u.wait(fmt.Sprintf("document %d", n), n)
	}
	u.note(n, moved)
}

// note writes a line of figures: MB after update n; ms from the move of the file to the first answer by it, to the last one by
// another on a new and on a kept connection; and the longest that a request took meanwhile.
func (u *updated) note(n int, moved time.Time) {
	var first, fresh, kept, longest time.Duration
	for _, v := range u.since(moved) {
		after := v.ended.Sub(moved)
		switch {
		case v.err != nil:
		case v.version == n && first == 0:
			first = after
		case v.version != n && v.fresh:
			fresh = after
		case v.version != n:
			kept = after
		}
		longest = max(longest, v.ended.Sub(v.began))
	}
	mb, err := residentMB(u.s.EnvoyPID())
	require.NoError(u.t, err)
	u.resident = append(u.resident, mb)
	fmt.Fprintf(&u.figures, "%2d %5.0f MB %4d ms %4d ms %4d ms %4d ms\n", n, mb,
		first.Milliseconds(), fresh.Milliseconds(), kept.Milliseconds(), longest.Milliseconds())
}

// end ends the load and judges.
func (u *updated) end() {
	u.stop()
	u.all.Wait()
	u.t.Logf("update, resident, first answer by it, last by another on a new and on a kept connection, longest wait:\n%s", u.figures.String())
	cut := 0
	for _, v := range u.answers {
		if v.err != nil && u.drains && !v.fresh {
			cut++ // at the end of the drain time Envoy closes what is left of the connections, also under a request
			continue
		}
		require.NoError(u.t, v.err, "fresh %v, after %v", v.fresh, v.ended.Sub(v.began))
	}
	u.t.Logf("%d answers, %d cut on kept connections", len(u.answers), cut)
	require.Empty(u.t, u.s.EnvoyErrors())
}

// residentMB is the memory that a process occupies (proc(5), statm).
func residentMB(pid int) (float64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0, err
	}
	pages, err := strconv.ParseFloat(strings.Fields(string(text))[1], 64)
	return pages * float64(os.Getpagesize()) / 1e6, err
}
