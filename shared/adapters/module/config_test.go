package module

import (
	"os"
	"runtime"
	"strconv"
	"testing"

	sdk "github.com/envoyproxy/envoy/source/extensions/dynamic_modules/sdk/go"
	"github.com/envoyproxy/envoy/source/extensions/dynamic_modules/sdk/go/shared"
	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/internal/native"
	inletversion "github.com/inlet-proxy/inlet/internal/version"
	"github.com/inlet-proxy/inlet/shared/contract/conf"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
)

// threadsOfServe is GOMAXPROCS before Serve, and as Serve has set it.
var threadsOfServe [2]int

func init() { // once in a process
	before := runtime.GOMAXPROCS(0)
	os.Setenv(native.ThreadsVariable, strconv.Itoa(before+1))
	Serve((&policy{}).factory())
	threadsOfServe = [2]int{before, runtime.GOMAXPROCS(before)}
	os.Unsetenv(native.ThreadsVariable)
}

func TestServe(t *testing.T) {
	require.Equal(t, threadsOfServe[0]+1, threadsOfServe[1])
	factory, err := sdk.NewHttpFilterFactory(&envoyConfig{}, FilterName, []byte(policyOnly))
	require.NoError(t, err)
	require.NotNil(t, factory)
	_, err = sdk.NewHttpFilterFactory(&envoyConfig{}, "policy", []byte(policyOnly))
	require.NoError(t, err, "each filter alone")
	const known = " is missing; known: inlet, policy"
	_, err = sdk.NewHttpFilterFactory(&envoyConfig{}, "", []byte(policyOnly))
	require.EqualError(t, err, "filter_name"+known)
	_, err = sdk.GetHttpFilterConfigFactory("").CreatePerRoute([]byte(policyOnly))
	require.EqualError(t, err, "filter_name"+known)
}

// What is known to a filter alone is that filter.
func TestFilterAlone(t *testing.T) {
	known := []filter.Factory{(&policy{}).factory(), {Name: "another"}}
	all := loaders(known, newProcess(known))
	_, err := all["policy"].Create(&envoyConfig{}, []byte(policyOnly))
	require.NoError(t, err)
	e := &envoyConfig{}
	_, err = all["another"].Create(e, []byte(policyOnly))
	require.Error(t, err)
	require.Equal(t, []string{`4 inlet: configuration: filters[0]: 1:11: unknown filter "policy"; known: another`}, e.logs)
	_, err = all["another"].CreatePerRoute([]byte(policyOnly))
	require.EqualError(t, err, "the configuration of a route has 1 mistake(s):\nconfiguration: filters[0]: 1:11: unknown filter \"policy\"; known: another")
}

func TestDocuments(t *testing.T) {
	l := &loader{known: []filter.Factory{(&policy{}).factory()}, process: newProcess(nil)}
	for _, document := range []string{policyOnly, `{"filters": [{"policy": {}}]}`} {
		e := &envoyConfig{}
		_, err := l.Create(e, []byte(document))
		require.NoError(t, err)
		require.Equal(t, []string{"2 inlet: version " + inletversion.String() + ", chain: policy(FailClosed)"}, e.logs)
	}
}

// Envoy shows that a configuration is refused; what is wrong stands in the log,
// a line each.
func TestMistakesAreLogged(t *testing.T) {
	l := &loader{known: []filter.Factory{(&policy{}).factory()}, process: newProcess(nil)}
	e := &envoyConfig{}
	document := []byte("filters:\n- policie: {}\nlimitz: {}\n")
	f, err := l.Create(e, document)
	require.Nil(t, f)
	require.EqualError(t, err, "the configuration has 2 mistake(s), all of them logged")
	require.Len(t, e.logs, 2)
	require.Contains(t, e.logs[0], `4 inlet: configuration: filters[0]: 2:3: unknown filter "policie" (did you mean "policy"?)`)
	require.Contains(t, e.logs[1], `limitz`)
}

func TestConfigurationThatPanics(t *testing.T) {
	bad := filter.Factory{Name: "policy", New: func(*conf.Object, *filter.Deps) filter.Filter { panic("a secret") }}
	l := &loader{known: []filter.Factory{bad}, process: newProcess(nil)}
	f, err := l.Create(&envoyConfig{}, []byte(policyOnly))
	require.Nil(t, f)
	require.ErrorContains(t, err, "the configuration could not be read: panic with a string at ")
	require.NotContains(t, err.Error(), "secret")
}

func TestConfigurationWithoutMetrics(t *testing.T) {
	l := &loader{known: []filter.Factory{(&policy{}).factory()}, process: newProcess(nil)}
	f, err := l.Create(&envoyConfig{refused: shared.MetricsFrozen}, []byte(policyOnly))
	require.Nil(t, f)
	require.ErrorContains(t, err, "could not be defined")
}

// What is counted must not be forgotten with the configuration.
func TestProcessOutlivesConfigurations(t *testing.T) {
	l := &loader{known: []filter.Factory{(&policy{}).factory()}, process: newProcess(nil)}
	var deps []*filter.Deps
	for range 2 {
		f, err := l.Create(&envoyConfig{}, []byte(policyOnly))
		require.NoError(t, err)
		deps = append(deps, f.(*config).Chain.Deps())
	}
	deps[0].Counters.Open("x").Add(1)
	require.EqualValues(t, 1, deps[1].Counters.Open("x").Value())
	require.NoError(t, deps[0].Store.Set("k", []byte("v"), 0))
	v, _, err := deps[1].Store.Get("k")
	require.NoError(t, err)
	require.Equal(t, "v", string(v))
}
