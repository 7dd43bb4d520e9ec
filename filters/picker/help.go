package picker

import "github.com/inlet-proxy/inlet/shared/contract/conf"

// help is for the keys of the configuration.
var help = []conf.Help{
	{Key: "profile", Text: "how a replica is chosen, see above"},
	{Key: "endpoints", Text: "length of the ranked list; Envoy's `num_retries` should be one less"},
	{Key: "pool", Text: "pool of requests to which bbr gave none"},
	{Key: "stale", Text: "age at which a gauge says nothing any more; as the companion's `stale`, which reports four times within it. If gauges come later than this again and again, a warning says so"},
	{Key: "slowStart", Text: "how long a new replica gets less than its share; `0s`: not at all"},
	{Key: "shed", Text: "whether requests are refused when every replica is saturated, whatever their priority"},
	{Key: "objectives", Text: "what requests may be for. One below 0 is refused when every replica is saturated"},
	{Key: "objectives[].name", Text: "the name that a request gives in `x-llm-d-inference-objective` or `x-gateway-inference-objective`"},
	{Key: "objectives[].priority", Text: "its priority; a request without an objective has 0"},
	{Key: "prefix.memory", Text: "size of the index of prompts, 16 bytes for a block of 64 tokens on one replica; taken when the first prompt comes, never exceeded. Of each replica no more is remembered than its own cache holds, if its metrics say so", Default: "`64MiB`, `32MiB` in each wasm VM"},
	{Key: "prefix.hit", Text: "share of a prompt that a replica must have computed for the request to stay there"},
	{Key: "prefix.weight", Text: "what a token in the cache weighs against one to wait for"},
	{Key: "prefix.saturation", Text: "tokens to be computed, above twice the pool's mean, at which a replica gets no more of the prompts that it knows"},
	{Key: "room.queue", Text: "waiting requests at which a replica is saturated"},
	{Key: "room.kv", Text: "share of the KV cache in use at which a replica is saturated"},
	{Key: "room.inFlight", Text: "requests in flight at which a replica is saturated"},
	{Key: "health.failures", Text: "failures in a row that eject a replica"},
	{Key: "health.eject", Text: "how long it is ejected at first; each further time twice as long"},
	{Key: "health.maxEject", Text: "how long it is ejected at most"},
	{Key: "health.share", Text: "largest share of a pool that is ejected at once"},
	{Key: "health.silence", Text: "how long a client waits in vain before its leaving says anything about the replica"},
	{Key: "session.header", Text: "request header that names the session"},
	{Key: "explainHeader", Text: "response header that says why this replica, as the access log does. Every client gets it, and no client can ask for it: it tells how many replicas there are and how busy they are, so set it where clients may know"},
}
