package balancer

import (
	"github.com/inlet-proxy/inlet/shared/contract/conf"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
)

// Name is the lb_policy_name under which Envoy finds the policy in the module.
const Name = "inlet"

// The fallbacks.
const (
	LeastRequest = "least-request"
	Random       = "random"
	None         = "none"
)

// Config is the lb_policy_config.
type Config struct {
	// Header of the request that has the list: "ip:port,ip:port".
	Header string
	// Fallback chooses if the list cannot be used: LeastRequest is that of two random
	// hosts which has fewer requests in progress, Random is any, with None only hosts of
	// the list are chosen.
	Fallback string
}

// Read reads a configuration. An empty one has the defaults.
func Read(document []byte) (Config, error) {
	c := Config{Header: filter.EndpointHeader, Fallback: LeastRequest}
	if len(document) == 0 {
		return c, nil
	}
	err := conf.Decode(document, c.read)
	return c, err
}

func (c *Config) read(o *conf.Object) {
	o.String("header", &c.Header, conf.HeaderName)
	o.Enum("fallback", &c.Fallback, LeastRequest, Random, None)
}
