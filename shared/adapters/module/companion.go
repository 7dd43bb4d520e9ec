package module

import (
	"github.com/envoyproxy/envoy/source/extensions/dynamic_modules/sdk/go/shared"

	"github.com/inlet-proxy/inlet/internal/chain"
	"github.com/inlet-proxy/inlet/internal/feed"
	"github.com/inlet-proxy/inlet/internal/native"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
)

// mainLoop is Envoy's main thread, on which the companion is called, for one configuration.
type mainLoop struct {
	shared.Scheduler
	config *config
	handle shared.HttpFilterConfigHandle
}

var _ native.Main = (*mainLoop)(nil)

// Call implements native.Main.
func (m *mainLoop) Call(cluster string, r *feed.Request, done func(*filter.Reply)) error {
	result, _ := m.handle.HttpCallout(cluster, r.Headers(cluster), r.Body, uint64(chain.Milliseconds(r.Timeout)), &call{m.config, done})
	return notStarted(result, cluster)
}

// call is one call to the companion.
type call struct {
	config *config
	done   func(*filter.Reply)
}

// OnHttpCalloutDone takes the answer.
func (c *call) OnHttpCalloutDone(_ uint64, result shared.HttpCalloutResult, headers [][2]shared.UnsafeEnvoyBuffer, body []shared.UnsafeEnvoyBuffer) {
	defer caught(c.config.Config)
	var memory []byte
	r := readReply(result, headers, body, &memory)
	c.done(&r)
}
