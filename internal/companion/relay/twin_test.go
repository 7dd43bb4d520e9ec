package relay_test

import (
	"math"
	"net/http"
	"testing"
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
			{Address: "10.0.0.01:80", LoRA: &endpoint.LoRA{Max: 1}, Started: 1},
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
				{"address":"10.0.0.01:80","ready":false,"gauges":null,"lora":{"running":[],"waiting":[],"max":1},"started":"1970-01-01T00:00:01Z",
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
