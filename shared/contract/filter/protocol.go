package filter

// The headers by which gateways and routes learn what was decided, and by which
// others tell this one: those of the endpoint picker protocol (Gateway API Inference
// Extension, proposal 004, v0.4) in both spellings of the field. They have their home
// here; where a filter lets the operator choose a name, these are the defaults.
const (
	// ModelHeader carries the model that the client asked for.
	ModelHeader = "x-gateway-model-name"
	// RewriteHeader carries the name that the replica is asked for.
	RewriteHeader = "x-gateway-model-name-rewrite"
	// BaseHeader carries the base model of that, for LoRA adapters.
	BaseHeader = "x-gateway-base-model-name"
	// PoolHeader names the pool, for ordinary routes to match.
	PoolHeader = "x-gateway-inference-pool"
	// EndpointHeader carries the ranked list "ip:port[,ip:port…]", which
	// envoy.load_balancing_policies.override_host reads.
	EndpointHeader = "x-gateway-destination-endpoint"
	// SubsetKey is the key of the subset hint in the dynamic metadata, under
	// SubsetNamespace.
	SubsetKey       = "x-gateway-destination-endpoint-subset"
	SubsetNamespace = "envoy.lb.subset_hint"

	servedHeader = "x-gateway-destination-endpoint-served"

	llmdModel    = "x-llm-d-model-name"
	llmdRewrite  = "x-llm-d-model-name-rewrite"
	llmdBase     = "x-llm-d-base-model-name"
	llmdPool     = "x-llm-d-inference-pool"
	llmdEndpoint = "x-llm-d-destination-endpoint"
)

// ReasonHeader carries the machine-readable reason of every refusal.
// DroppedHeader has the same where the request may be sent again (429 and 503),
// under the name that clients of the llm-d router know.
const (
	ReasonHeader  = "x-inlet-reason"
	DroppedHeader = "x-llm-d-request-dropped-reason"
)

// ObjectiveHeaders name the inference objective of a request, the newer spelling first.
var ObjectiveHeaders = [...]string{"x-llm-d-inference-objective", "x-gateway-inference-objective"}

// Renamings are the headers in which gateways say how they have renamed a model: what
// was asked for, and what it is now.
var Renamings = [...]struct{ From, To string }{
	{ModelHeader, RewriteHeader},
	{llmdModel, llmdRewrite},
}

// ControlHeaders are the headers by which gateways tell each other what was
// decided, in both spellings of the field. A client's own are removed by Envoy
// before routes are matched (envoy/static has the same list, held by a test),
// and once more by the chain unless "controlHeaders: trust" is set. The chain
// does the same for headers of the operator's own choice that a filter claims
// (Deps.ClaimHeader).
var ControlHeaders = []string{
	ModelHeader, RewriteHeader, BaseHeader, PoolHeader, EndpointHeader, SubsetKey, servedHeader,
	llmdModel, llmdRewrite, llmdBase, llmdPool, llmdEndpoint, llmdEndpoint + "-subset", llmdEndpoint + "-served",
}
