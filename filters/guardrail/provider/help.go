package provider

import "github.com/inlet-proxy/inlet/shared/contract/conf"

const (
	limitHelp = "most bytes of text in one request; a longer text is split"
	pathHelp  = "path of the requests"
)

// Help is for the keys of the protocols, which stand in an entry of "providers".
var Help = []conf.Help{
	{Key: "providers[].modelArmor", Text: "Google Cloud Model Armor"},
	{Key: "providers[].modelArmor.template", Text: "full name of the template that says what is screened: `projects/PROJECT/locations/LOCATION/templates/TEMPLATE`"},
	{Key: "providers[].modelArmor.limit", Text: limitHelp + ". Filters of Model Armor skip texts with too many tokens, and the check fails"},
	{Key: "providers[].nemo", Text: "NVIDIA NeMo Guardrails"},
	{Key: "providers[].nemo.config", Text: "`config_id` of the guardrail configuration"},
	{Key: "providers[].nemo.model", Text: "`model` of the requests, for rails that ask the main model"},
	{Key: "providers[].nemo.microservice", Text: "the service is NVIDIA's microservice (`/v1/guardrail/checks`), not the open-source server (`/v1/checks`)"},
	{Key: "providers[].nemo.path", Text: pathHelp, Default: "that of the server or the microservice"},
	{Key: "providers[].nemo.masks", Text: "the configuration has rails that mask text, and what they return takes its place. Otherwise a text that a rail has changed is a failed check"},
	{Key: "providers[].nemo.rails", Text: "names of your own rails that the access log and metrics may contain; any that neither you nor NeMo's documentation lists is `other` there"},
	{Key: "providers[].nemo.limit", Text: limitHelp},
	{Key: "providers[].moderations", Text: "the moderations API of OpenAI, or of a server that offers the same"},
	{Key: "providers[].moderations.path", Text: pathHelp},
	{Key: "providers[].moderations.model", Text: "`model` of the requests"},
	{Key: "providers[].moderations.limit", Text: limitHelp},
	{Key: "providers[].moderations.categories", Text: "categories that count, such as `violence`. A response without one of them is a failed check", Default: "all"},
	{Key: "providers[].moderations.thresholds", Text: "scores from 0 to 1, by category, from which it counts", Default: "the service's own judgement"},
	{Key: "providers[].safetyModel", Text: "a model that says `safe`, or `unsafe` and categories, as Llama Guard does, behind an API compatible with OpenAI's"},
	{Key: "providers[].safetyModel.model", Text: "`model` of the requests"},
	{Key: "providers[].safetyModel.path", Text: pathHelp},
	{Key: "providers[].safetyModel.limit", Text: limitHelp},
	{Key: "providers[].safetyModel.categories", Text: "names of the model's categories for the access log and metrics; any other one is `other` there", Default: "`S1` to `S14` of Llama Guard 3 and 4"},
	{Key: "providers[].webhook", Text: "a service of your own, with [Inlet's schema](#webhook)"},
	{Key: "providers[].webhook.path", Text: pathHelp},
	{Key: "providers[].webhook.limit", Text: limitHelp},
	{Key: "providers[].webhook.reasons", Text: "reasons that the access log and metrics may contain; any other one is `other` there, since it could quote the text"},
}
