package quota

import "github.com/inlet-proxy/inlet/shared/contract/conf"

// help is for the keys of the configuration.
var help = []conf.Help{
	{Key: "keys", Text: "the accepted API keys, and where a client may send them"},
	{Key: "keys.from", Text: "headers in which a key is accepted; in `authorization` and `proxy-authorization` it is the token after `Bearer`. Others that clients use: `api-key` (Azure), `x-goog-api-key` (Google)"},
	{Key: "keys.header", Text: "older spelling of `from`, for one header", Old: true},
	{Key: "keys.list", Text: "the keys; without any, every request would be refused"},
	{Key: "keys.list[].name", Text: "application or developer that the key belongs to; shown in the access log"},
	{Key: "keys.list[].sha256", Text: "SHA-256 of the key in hex: `printf %s KEY | sha256sum`"},
}
