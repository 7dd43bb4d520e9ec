package picker

import "github.com/inlet-proxy/inlet/shared/contract/conf"

// help is for the keys of the configuration.
var help = []conf.Help{
	{Key: "profile", Text: "how a replica is chosen: a [profile](#profiles) by name, or one that is spelt out", Default: "`sticky`"},
	{Key: "profile.scorers", Text: "what rates the candidates; their weighted sum decides"},
	{Key: "profile.scorers[].name", Text: "a [scorer](#profiles)"},
	{Key: "profile.scorers[].weight", Text: "what its score counts"},
	{Key: "profile.saturated", Text: "whether saturated replicas come behind all others"},
	{Key: "profile.affinity", Text: "whether replicas come first that have the prompt cached"},
	{Key: "profile.allSaturated", Text: "the profile that takes over when every candidate is saturated"},
	{Key: "endpoints", Text: "length of the ranked list; Envoy's `num_retries` should be one less"},
	{Key: "pool", Text: "pool of requests to which bbr gave none"},
	{Key: "stale", Text: "age at which a gauge says nothing any more. Should equal the companion's `stale`, which renews gauges four times within it. A warning says if they come too late"},
	{Key: "prefix.memory", Text: "size of the prefix index, 16 bytes for a block of 64 tokens on one replica. Taken with the first prompt, never exceeded. Of each replica no more is remembered than fits into its own cache, if its metrics tell the size", Default: "`64MiB`, `32MiB` in each wasm VM"},
	{Key: "prefix.hit", Text: "share of a prompt that must be cached for affinity"},
	{Key: "prefix.weight", Text: "how much a cached token counts against one to wait for"},
	{Key: "prefix.maxTokens", Text: "tokens to compute, above twice the pool's mean, at which affinity ends"},
	{Key: "saturation.queue", Text: "waiting requests at which a replica is saturated"},
	{Key: "saturation.kv", Text: "share of the KV cache in use at which a replica is saturated"},
	{Key: "saturation.inFlight", Text: "requests in flight at which a replica is saturated"},
	{Key: "shed", Text: "refuse requests of any priority when every replica is saturated"},
	{Key: "objectives", Text: "objectives that requests may name. Those below 0 are refused when every replica is saturated"},
	{Key: "objectives[].name", Text: "the name that a request gives in `x-llm-d-inference-objective` or `x-gateway-inference-objective`"},
	{Key: "objectives[].priority", Text: "its priority; a request without an objective has 0"},
	{Key: "health.failures", Text: "consecutive failures that [eject](#health) a replica"},
	{Key: "health.eject", Text: "duration of the first ejection; each further one is twice as long"},
	{Key: "health.maxEject", Text: "duration of the longest ejection"},
	{Key: "health.share", Text: "largest share of a pool that is ejected at once"},
	{Key: "health.firstByte", Text: "how long a request must have waited for its first byte to count"},
	{Key: "slowStart", Text: "how long a new replica gets less than its share. `0s`: not at all"},
	{Key: "session.header", Text: "header that names the session"},
	{Key: "explainHeader", Text: "response header with the reason for the choice, as in the access log. Every client gets it. It tells how many replicas there are and how busy they are, so set it only where clients may know"},
}
