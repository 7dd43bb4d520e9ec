package e2e_test

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/inlet-proxy/inlet/e2e/stack"
)

// To measure: go test ./e2e -run TestUpdates -v -count 1 -updates 24 [-drain 600s] [-plugin another.wasm].
var (
	updatesFlag = flag.Int("updates", 8, "TestUpdates: how many configurations follow the first")
	drainFlag   = flag.Duration("drain", 10*time.Second, "TestUpdates: Envoy's drain time; its end is waited for after the last update, if it is below a minute")
	pluginFlag  = flag.String("plugin", "", "TestUpdates: measure this .wasm file, in turn with that of this tree, and judge it alike")
)

// configurationOf is version n of a configuration of 2,000 models; in it "llama" is served as "version-n".
func configurationOf(n int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "filters:\n  - bbr:\n      models:\n        - {name: llama, targets: [{model: version-%d, pool: llama}]}\n", n)
	for i := range 2000 {
		fmt.Fprintf(&b, "        - {name: team-%d-model-%d, targets: [{model: served-%d, pool: llama, weight: 90}, {model: next-%d-%d, pool: llama, weight: 10}]}\n",
			i%50, i, i, n, i)
	}
	b.WriteString("  - picker: {}\ncompanion: {cluster: inlet-companion}\n")
	return b.String()
}

// TestUpdates changes a large configuration repeatedly while it sends requests. Each change takes effect, no request
// fails because of it, and Envoy's memory does not grow with the number of changes.
func TestUpdates(t *testing.T) {
	for _, abi := range abis {
		for way, start := range map[string]func(t *testing.T, o stack.Options) *updated{
			"with its listener": updatedByListener, "the filter alone": updatedByFilter,
		} {
			t.Run(abi+", "+way, func(t *testing.T) {
				all := []*updated{start(t, stack.Options{ABI: abi})}
				if *pluginFlag != "" && abi == stack.Wasm {
					all = append(all, start(t, stack.Options{ABI: abi, Plugin: *pluginFlag}))
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
}

// updated is an Envoy whose configuration changes under load.
type updated struct {
	t      *testing.T
	s      *stack.Stack
	change func(n int) time.Time // installs configuration n and returns when
	drains bool                  // a change drains the existing connections
	stop   context.CancelFunc
	all    sync.WaitGroup

	mu        sync.Mutex
	responses []versioned

	figures  strings.Builder
	resident []float64 // MB after each update
}

// versioned is a response and the version of its configuration.
type versioned struct {
	began, ended time.Time
	version      int
	fresh        bool // on a new connection
	err          error
}

// startUpdated starts an Envoy and four clients, two of which make a new connection for each request.
func startUpdated(t *testing.T, o stack.Options) *updated {
	t.Helper()
	o.Drain, o.Chain, o.Alone = *drainFlag, configurationOf(0), true // its memory is measured
	o.Pools = []stack.Pool{{Name: "llama", Replicas: 1, Args: []string{"--speed", "2"}}}
	ctx, stop := context.WithCancel(t.Context())
	u := &updated{t: t, s: stack.ForTest(t, o), stop: stop}
	t.Cleanup(func() { stop(); u.all.Wait() })
	for _, fresh := range []bool{true, true, false, false} {
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: fresh}, Timeout: patience}
		t.Cleanup(client.CloseIdleConnections)
		u.all.Go(func() {
			for ctx.Err() == nil {
				u.ask(client, fresh)
			}
		})
	}
	u.wait(0)
	u.note(0, time.Now())
	return u
}

// updatedByListener changes the configuration together with its listener (LDS).
func updatedByListener(t *testing.T, o stack.Options) *updated {
	t.Helper()
	o.Updatable = true
	u := startUpdated(t, o)
	u.drains = true
	u.change = func(n int) time.Time {
		require.NoError(t, u.s.Update(t.Context(), func(o *stack.Options) { o.Chain = configurationOf(n) }))
		file, err := os.Stat(filepath.Join(u.s.Dir, "lds", "lds.json"))
		require.NoError(t, err)
		return file.ModTime()
	}
	return u
}

// updatedByFilter changes only the filter's configuration (ECDS), as docs/updates.md shows.
func updatedByFilter(t *testing.T, o stack.Options) *updated {
	t.Helper()
	page, err := os.ReadFile("../docs/updates.md")
	require.NoError(t, err)
	example := &hcmv3.HttpConnectionManager{}
	require.NoError(t, stack.UnmarshalYAML(regexp.MustCompile("(?ms)^```yaml\n(http_filters:.*?)^```$").FindSubmatch(page)[1], example))
	source := example.GetHttpFilters()[0].GetConfigDiscovery()
	file := filepath.Join(t.TempDir(), "inlet", "ecds.json")
	path := source.GetConfigSource().GetPathConfigSource()
	path.Path, path.WatchedDirectory.Path = file, filepath.Dir(file)

	var filter *anypb.Any
	write := func(n int) time.Time {
		setFilterConfiguration(filter, func(a *anypb.Any) {
			editAny(a, func(v *wrapperspb.StringValue) { v.Value = configurationOf(n) })
		})
		require.NoError(t, moveDiscovery(file, &corev3.TypedExtensionConfig{Name: "inlet", TypedConfig: filter}))
		return time.Now()
	}
	o.Edit = func(b *bootstrapv3.Bootstrap) {
		editManager(b, func(m *hcmv3.HttpConnectionManager) {
			filter = inletFilter(m).GetTypedConfig()
			source.TypeUrls = []string{filter.GetTypeUrl()}
			inletFilter(m).ConfigType = &hcmv3.HttpFilter_ConfigDiscovery{ConfigDiscovery: source}
		})
		write(0)
	}
	u := startUpdated(t, o)
	u.change = write
	return u
}

// moveDiscovery atomically replaces a file that has one resource.
func moveDiscovery(file string, resource *corev3.TypedExtensionConfig) error {
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
	next := filepath.Dir(file) + ".next" // outside the folder that Envoy watches
	if err := os.WriteFile(next, text, 0o600); err != nil {
		return err
	}
	return os.Rename(next, file)
}

// ask sends one request.
func (u *updated) ask(client *http.Client, fresh bool) {
	v := versioned{began: time.Now(), fresh: fresh}
	resp, err := client.Post(u.s.URL()+chatPath, "application/json", strings.NewReader(smallChat))
	if err == nil {
		_, err = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		if err == nil && resp.StatusCode != http.StatusOK {
			err = fmt.Errorf("status %s", resp.Status)
		}
	}
	v.ended = time.Now()
	if v.err = err; err == nil {
		v.version, v.err = strconv.Atoi(strings.TrimPrefix(resp.Header.Get("x-modelsim-model"), "version-"))
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.responses = append(u.responses, v)
}

// since are the responses that ended after a time, in order of their ends.
func (u *updated) since(t time.Time) []versioned {
	u.mu.Lock()
	defer u.mu.Unlock()
	i := len(u.responses)
	for i > 0 && u.responses[i-1].ended.After(t) {
		i--
	}
	return slices.Clone(u.responses[i:])
}

// wait waits until configuration n has served the last new connections, enough of them to reach all workers.
func (u *updated) wait(n int) {
	u.t.Helper()
	began := time.Now()
	eventually(u.t, fmt.Sprintf("configuration %d is in force", n), func() (bool, error) {
		same := 0
		for _, v := range slices.Backward(u.since(began)) {
			if v.fresh && (v.err != nil || v.version != n) {
				break
			}
			if v.fresh {
				same++
			}
		}
		return same >= 40, nil
	})
}

// update installs configuration n and records the cost.
func (u *updated) update(n int) {
	u.t.Helper()
	moved := u.change(n)
	u.wait(n)
	if n == *updatesFlag && u.drains && *drainFlag < time.Minute {
		eventually(u.t, "the configurations before are gone", func() (bool, error) {
			m, err := u.s.Metrics(u.t.Context())
			return m.Sum("envoy_listener_manager_total_filter_chains_draining") == 0, err
		})
		u.wait(n)
	}
	u.note(n, moved)
}

// note logs a line of figures: MB after update n; ms from the move of the file to the first response with it, to the last
// response with another one on a new and on a kept connection; and the longest time of a request meanwhile.
func (u *updated) note(n int, moved time.Time) {
	u.t.Helper()
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

// end stops the load and checks the results.
func (u *updated) end() {
	u.t.Helper()
	u.stop()
	u.all.Wait()
	u.t.Logf("update, resident, first response by it, last by another on a new and on a kept connection, longest wait:\n%s", u.figures.String())
	cut := 0
	for _, v := range u.responses {
		if v.err != nil && u.drains && !v.fresh {
			cut++ // at the end of the drain time Envoy closes the remaining connections, also during a request
			continue
		}
		require.NoError(u.t, v.err, "new connection %v, after %v", v.fresh, v.ended.Sub(v.began))
	}
	u.t.Logf("%d responses, %d requests cut on kept connections", len(u.responses), cut)
	require.Empty(u.t, u.s.EnvoyErrors())
	if *drainFlag < time.Minute { // with more, all configurations of the test stay in use until its end
		// The later updates reuse the memory of the first ones: less than three VMs of 20 MB and more, of which each
		// worker has one.
		const few, mb = 3, 60
		require.Less(u.t, u.resident[len(u.resident)-1], u.resident[min(few, len(u.resident)-1)]+mb)
	}
}

// residentMB is the memory that a process uses (proc(5), statm).
func residentMB(pid int) (float64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0, err
	}
	pages, err := strconv.ParseFloat(strings.Fields(string(text))[1], 64)
	return pages * float64(os.Getpagesize()) / 1e6, err
}
