package main

import (
	"context"
	"fmt"
	"os"
	"slices"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	jsonmetadatav3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/json_to_metadata/v3"
	localv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/local_ratelimit/v3"
	ratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ratelimit/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/inlet-proxy/inlet/bench/peers"
	"github.com/inlet-proxy/inlet/e2e/stack"
)

// Keys of the quota benchmark: one that no limit ever stops, and one with limits that are soon reached, for the check
// before the measurement.
const (
	freeKey    = key
	smallKey   = "small-key"
	manyCalls  = 1_000_000_000
	fewCalls   = 5
	fewTokens  = 3000
	tokensEach = 1001 // of upstream.Completion
)

// localFilter is Envoy's local_ratelimit: a bucket for each key, in the process.
var localFilter = fmt.Sprintf(`
stat_prefix: bench
filter_enabled: {default_value: {numerator: 100}}
filter_enforced: {default_value: {numerator: 100}}
token_bucket: {max_tokens: %[1]d, tokens_per_fill: %[1]d, fill_interval: 3600s}
rate_limits: [{actions: [{request_headers: {header_name: x-api-key, descriptor_key: key}}]}]
descriptors:
  - {entries: [{key: key, value: %[2]s}], token_bucket: {max_tokens: %[1]d, tokens_per_fill: %[1]d, fill_interval: 3600s}}
  - {entries: [{key: key, value: %[3]s}], token_bucket: {max_tokens: %[4]d, tokens_per_fill: %[4]d, fill_interval: 3600s}}
`, manyCalls, freeKey, smallKey, fewCalls)

// serviceConfig is the configuration of the rate limit service. Limits are by the day, so that
// no counter goes meanwhile.
var serviceConfig = fmt.Sprintf(`domain: bench
descriptors:
  - {key: calls, value: %[1]s, rate_limit: {unit: day, requests_per_unit: %[3]d}}
  - {key: calls, value: %[2]s, rate_limit: {unit: day, requests_per_unit: %[4]d}}
  - {key: token-calls, value: %[1]s, rate_limit: {unit: day, requests_per_unit: %[3]d}}
  - {key: token-calls, value: %[2]s, rate_limit: {unit: day, requests_per_unit: %[3]d}}
  - {key: tokens, value: %[1]s, rate_limit: {unit: day, requests_per_unit: %[3]d}}
  - {key: tokens, value: %[2]s, rate_limit: {unit: day, requests_per_unit: %[5]d}}
`, freeKey, smallKey, manyCalls, fewCalls, fewTokens)

// serviceFilter is Envoy's ratelimit filter with the limits of a mode. A service that is slow for a moment is waited for,
// and one that fails is seen: every request is counted.
func serviceFilter(limits string) string {
	return `
domain: bench
timeout: 30s
failure_mode_deny: true
rate_limit_service: {transport_api_version: V3, grpc_service: {envoy_grpc: {cluster_name: ratelimit}}}
rate_limits:
` + limits
}

func perKey(name string) string {
	return "actions: [{request_headers: {header_name: x-api-key, descriptor_key: " + name + "}}]"
}

// callsLimit is a limit of requests: one call of the service before the request goes on.
var callsLimit = "  - {" + perKey("calls") + "}\n"

// tokensLimit is one of requests and one of tokens: a call before the request goes on, which looks at the tokens and takes
// none, and a call at the end of the stream, which charges what the response says. hits_addend counts only here and in
// typed_per_filter_config; in the rate_limits of a route it is ignored, and each charge is 1.
var tokensLimit = "  - {" + perKey("token-calls") + "}\n" +
	"  - {" + perKey("tokens") + ", hits_addend: {number: 0}}\n" +
	"  - {" + perKey("tokens") + ", hits_addend: {format: '%DYNAMIC_METADATA(bench.usage:total)%'}, apply_on_stream_done: true}\n"

// usageFilter reads the tokens of the response for hits_addend.
const usageFilter = `
response_rules:
  rules:
    - selectors: [{key: usage}, {key: total_tokens}]
      on_present: {metadata_namespace: bench.usage, key: total, type: NUMBER}
`

// addFilter puts a filter before the router.
func addFilter(name, config string, into proto.Message) edit {
	return func(_ *bootstrapv3.Bootstrap, m *hcmv3.HttpConnectionManager) error {
		if err := stack.UnmarshalYAML([]byte(config), into); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		typed, err := anypb.New(into)
		if err != nil {
			return err
		}
		m.HttpFilters = slices.Insert(m.GetHttpFilters(), len(m.GetHttpFilters())-1, &hcmv3.HttpFilter{
			Name: name, ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: typed},
		})
		return nil
	}
}

// addService adds the cluster of the rate limit service.
func addService(address string) edit {
	return func(b *bootstrapv3.Bootstrap, _ *hcmv3.HttpConnectionManager) error {
		resources := b.GetStaticResources()
		cluster, err := grpcCluster("ratelimit", address, resources.GetClusters()[0].GetCircuitBreakers())
		if err != nil {
			return err
		}
		resources.Clusters = append(resources.GetClusters(), cluster)
		return nil
	}
}

// startLimits starts the rate limit service and its Redis for a mode. Modes share them, as only one is measured at a time.
func (b *bench) startLimits(ctx context.Context, root string, m *mode) (err error) {
	if b.limits == nil {
		b.limits, err = peers.StartRatelimit(ctx, root, serviceConfig, os.Stderr)
	}
	if err == nil {
		m.beside = append(m.beside, b.limits.PIDs()...)
	}
	return err
}

// limiterEdits put one of the limiters into Envoy that Inlet's quota is compared with.
func (b *bench) limiterEdits(name string) []edit {
	switch name {
	case "local":
		return []edit{addFilter("envoy.filters.http.local_ratelimit", localFilter, &localv3.LocalRateLimit{})}
	case "calls":
		return []edit{addService(b.limits.Address), addFilter("envoy.filters.http.ratelimit", serviceFilter(callsLimit), &ratelimitv3.RateLimit{})}
	case "tokens":
		return []edit{
			addService(b.limits.Address),
			addFilter("envoy.filters.http.ratelimit", serviceFilter(tokensLimit), &ratelimitv3.RateLimit{}),
			addFilter("envoy.filters.http.json_to_metadata", usageFilter, &jsonmetadatav3.JsonToMetadata{}),
		}
	}
	return nil
}
