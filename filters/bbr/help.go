package bbr

import "github.com/inlet-proxy/inlet/shared/contract/conf"

// help is for the keys of the configuration.
var help = []conf.Help{
	{Key: "header", Text: "request header that gets the public name of the model"},
	{Key: "bodyFieldToHeader", Text: "body members to copy to headers; such a header from the client itself is removed"},
	{Key: "bodyFieldToHeader[].field", Text: "a top-level body member: a string, number or boolean. `model` means the public name"},
	{Key: "bodyFieldToHeader[].header", Text: "the header that gets it, in lower or upper case"},
	{Key: "models", Text: "the models that clients may use. Without any, the filter only copies the name to the header"},
	{Key: "models[].name", Text: "the public name, which clients use"},
	{Key: "models[].aliases", Text: "further names of it; `name*` matches every name with this prefix. An exact name takes precedence, then the longest prefix"},
	{Key: "models[].base", Text: "base model of a LoRA adapter", Default: "what the replicas say"},
	{Key: "models[].adapters", Text: "LoRA adapters that are loaded wherever the model is. Clients and replicas use their own names; their base is `base`, or the model"},
	{Key: "models[].targets", Text: "the targets of the name; each request goes to one of them"},
	{Key: "models[].targets[].model", Text: "the replica's name for the model", Default: "the public name"},
	{Key: "models[].targets[].pool", Text: "pool of replicas that serves it"},
	{Key: "models[].targets[].weight", Text: "share of the requests"},
	{Key: "models[].stickyBy", Text: "what decides the target, so that the same value gets the same one in every worker and after a restart: a `field` or a `header`. Requests without it get a random target", Default: "random"},
	{Key: "models[].stickyBy.field", Text: "a member of the body, such as `user`"},
	{Key: "models[].stickyBy.header", Text: "a request header, such as `x-session-id`"},
	{Key: "models[].fallback", Text: "pools to use, in this order, if no replica of the target's pool is available. `inlet_request_total` then has the pool that was used"},
	{Key: "pools", Text: "pools that need more than a name; others need not be listed"},
	{Key: "pools[].name", Text: "the name by which `models` uses it"},
	{Key: "pools[].external", Text: "whether it is an external service: the picker neither picks there nor waits for gauges"},
	{Key: "learnAdapters", Text: "whether to serve adapters that the replicas list without configuring them, see below. Without a companion there are no lists"},
	{Key: "unknownModel", Text: "what happens to a request for a name that is not listed", Default: "`refuse` with models listed, otherwise `pass`"},
	{Key: "missingModel", Text: "what happens to a request without a model; `pass` leaves it to ordinary routes"},
	{Key: "listModels", Text: "whether Inlet responds to `GET /v1/models` and `GET /v1/models/{id}`. Aliases with an asterisk are not listed, but `{id}` may be a name that they match", Default: "`true` with models listed"},
}
