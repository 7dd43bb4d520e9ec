package relay_test

import (
	"errors"
	"math"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/internal/companion/relay"
	"github.com/inlet-proxy/inlet/shared/state/endpoint"
)

// The readable twin has all that is known of a replica, and what each proxy has in flight.
func TestJSONTwinOfAllThatIsKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := relay.New(relay.Options{Source: 7})
		r.Publish([]endpoint.Pool{{Name: "p", Endpoints: []endpoint.Endpoint{
			{
				Address: "10.0.0.00:80", Ready: true,
				Models: &endpoint.Models{Names: []string{"base"}, Adapters: []endpoint.Adapter{{Name: "sql", Parent: "base"}, {Name: "poem", Parent: "base"}}},
				LoRA:   &endpoint.LoRA{Running: []string{"sql"}, Waiting: []string{"poem"}, Max: 4},
				Cache:  endpoint.Cache{BlockTokens: 16, Blocks: 900},
			},
			{Address: "10.0.0.01:80", LoRA: &endpoint.LoRA{Max: 1}},
		}}})
		tell(t, r, "b", []int64{0, 2})
		tell(t, r, "a", []int64{1, 3})
		time.Sleep(250 * time.Millisecond)
		w := get(r, "/v1/snapshot.json")
		require.Equal(t, http.StatusOK, w.Code)
		require.JSONEq(t, `{"id":"7-1","source":"7","version":1,"taken":"`+time.Now().UTC().Format(time.RFC3339Nano)+`",
			"pools":[{"name":"p","ready":1,"endpoints":[
				{"address":"10.0.0.00:80","ready":true,"gauges":null,"models":["base"],
					"adapters":[{"name":"sql","parent":"base"},{"name":"poem","parent":"base"}],
					"lora":{"running":["sql"],"waiting":["poem"],"max":4},"cache":{"blockTokens":16,"blocks":900},
					"inFlight":{"requests":1,"tokens":100}},
				{"address":"10.0.0.01:80","ready":false,"gauges":null,"lora":{"running":[],"waiting":[],"max":1},
					"inFlight":{"requests":5,"tokens":500}}]}],
			"workers":[],
			"proxies":[
				{"id":"a","inFlight":{"requests":4,"tokens":400},"silentMs":250},
				{"id":"b","inFlight":{"requests":2,"tokens":200},"silentMs":250}]}`, w.Body.String())
	})
}

// JSON has no word for what is no number.
func TestJSONTwinOfWhatIsNoNumber(t *testing.T) {
	r := relay.New(relay.Options{})
	pools := queue(1)
	pools[0].Endpoints[0].Gauges.KVUse = math.NaN()
	r.Publish(pools)
	require.Equal(t, http.StatusInternalServerError, get(r, "/v1/snapshot.json").Code)
}

// A tell that breaks off is refused, and nothing of it counts.
func TestATellThatBreaksOff(t *testing.T) {
	r := relay.New(relay.Options{})
	r.Publish(newFleet(1).now())
	w := httptest.NewRecorder()
	r.ServeHTTP(w, httptest.NewRequest(http.MethodPost, endpoint.TellPath("a"), iotest.ErrReader(errors.New("reset"))))
	require.Equal(t, http.StatusBadRequest, w.Code)
	require.Empty(t, r.Proxies())
	require.EqualValues(t, 1, r.Stats().Relay.Refused)
}

// A proxy that was away while another one died is told, also when the dead one is forgotten altogether by then.
func TestADeadProxyIsTakenBackFromWhoWasAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := relay.New(relay.Options{Heartbeat: 24 * time.Hour, MaxWait: time.Minute, Lease: time.Second})
		f := newFleet(2)
		r.Publish(f.now())
		l := listener{id: "l"}
		tell(t, r, "dead", []int64{4})
		l.poll(t, r)
		require.Equal(t, []int64{4, 0}, l.peers())
		version := l.have.Version
		time.Sleep(lease)
		r.Publish(f.now())
		time.Sleep(2 * time.Minute)
		r.Publish(f.now())
		require.Empty(t, r.Proxies(), "forgotten")
		l.poll(t, r)
		require.Equal(t, version, l.have.Version)
		require.Equal(t, []int64{0, 0}, l.peers())
		require.Equal(t, http.StatusNotModified, get(r, l.path(0)).Code)
	})
}
