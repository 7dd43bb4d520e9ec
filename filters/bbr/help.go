package bbr

import "github.com/inlet-proxy/inlet/shared/contract/conf"

// help is for the keys of the configuration.
var help = []conf.Help{
	{Key: "header", Text: "request header that gets the public name of the model"},
	{Key: "bodyFieldToHeader", Text: "members of the body that go to headers; what the client sent in such a header itself is removed"},
	{Key: "bodyFieldToHeader[].field", Text: "a top-level member of the body: a string, number or boolean. `model` stands for the public name"},
	{Key: "bodyFieldToHeader[].header", Text: "the header that gets it, in lower or upper case"},
	{Key: "models", Text: "the models that clients may ask for. Without any, the filter only copies the name to the header"},
	{Key: "models[].name", Text: "the name that clients ask for"},
	{Key: "models[].aliases", Text: "further names of it; `name*` stands for all that begin so, of which the longest wins. An exact name goes before all of them"},
	{Key: "models[].base", Text: "base model of a LoRA adapter", Default: "what the replicas say"},
	{Key: "models[].adapters", Text: "LoRA adapters that are loaded wherever the model is: asked for, and passed on, by their own names; `base` or else the model is their base"},
	{Key: "models[].targets", Text: "what the name can stand for; one is chosen for each request"},
	{Key: "models[].targets[].model", Text: "the name that the replica knows", Default: "the public name"},
	{Key: "models[].targets[].pool", Text: "pool of replicas that serves it"},
	{Key: "models[].targets[].weight", Text: "share of the requests"},
	{Key: "models[].stickyBy", Text: "what decides the target, so that the same value gets the same one in every worker and after a restart: a `field` or a `header`. Requests without it get a random target", Default: "random"},
	{Key: "models[].stickyBy.field", Text: "a member of the body, such as `user`"},
	{Key: "models[].stickyBy.header", Text: "a request header, such as `x-session-id`"},
	{Key: "models[].fallback", Text: "pools to use, in this order, when the picker finds no ready replica in the target's. `inlet_request_total` then has the pool that was taken"},
	{Key: "pools", Text: "pools that need more than a name; others need not be listed"},
	{Key: "pools[].name", Text: "the name by which `models` uses it"},
	{Key: "pools[].external", Text: "whether it is somebody else's service: the picker neither picks there nor waits for gauges"},
	{Key: "learnAdapters", Text: "whether adapters that the replicas list are served without being configured, see below. Without a companion there are no lists"},
	{Key: "unknownModel", Text: "what happens to a request for a name that is not listed", Default: "`refuse` with models listed, else `pass`"},
	{Key: "missingModel", Text: "what happens to a request that names no model; `pass` leaves it to ordinary routes"},
	{Key: "listModels", Text: "whether `GET /v1/models` and `GET /v1/models/{id}` are answered here; aliases with an asterisk are not listed, and what they stand for can be asked about", Default: "`true` with models listed"},
}
