// Package embedded is the companion inside a proxy: it finds and scrapes the replicas in the proxy's own process, by the same code as a companion
// process, and hands each snapshot over in memory. There is no relay: it is for one proxy.
package embedded

import (
	"slices"

	"github.com/inlet-proxy/inlet/internal/companion/replicas"
	"github.com/inlet-proxy/inlet/shared/contract/conf"
)

// elsewhere are the keys of a companion process that need a port or serve several proxies, and what to do instead.
var elsewhere = []struct{ key, why string }{
	{"listen", "an embedded companion has no port: remove it. Envoy's /stats show what it knows"},
	{"serve", "an embedded companion serves nothing: let Envoy read the same eds file, or run a companion process"},
	{"relay", "an embedded companion has no other proxies to relay to: remove it, or run a companion process"},
	{"quota", "with an embedded companion limits are for this Envoy alone, and keys and products stand in the filter quota: remove it, or run a companion process"},
	{"tokens", "an embedded companion keeps no access tokens: run a companion process, which needs no pools for that"},
}

// Read reads the section.
func Read(o *conf.Object) *replicas.Config {
	c := replicas.Default()
	for _, e := range elsewhere {
		if o.Has(e.key) {
			o.Errorf(e.key, "%s", e.why)
		}
	}
	c.Read(o, replicas.Reading{})
	o.Required("pools")
	return &c
}

// Help is about the keys of the section.
var Help = slices.Concat([]conf.Help{
	{Key: "scrape", Text: "how replicas are scraped; a pool can override all but the times"},
	{Key: "scrape.interval", Text: "time between two scrapes of one replica"},
	{Key: "scrape.timeout", Text: "time that one request may take"},
	{Key: "scrape.modelsInterval", Text: "time between two requests for a replica's list of models"},
}, scrapeHelp("scrape."), []conf.Help{
	{Key: "publish", Text: "at most one new snapshot in this time"},
	{Key: "stale", Text: "age at which the gauges of a replica no longer count, as `stale` of the picker; at least four times `scrape.interval`"},
	{Key: "pools", Text: "the pools of replicas; each has one of `eds`, `dns` and `static`"},
	{Key: "pools[].name", Text: "name of the pool, as the filters have it"},
	{Key: "pools[].eds", Text: "the EDS file that Envoy itself reads by `path_config_source`; relative to the working directory"},
	{Key: "pools[].static", Text: "the replicas, each ip:port"},
	{Key: "pools[].dns", Text: "a name whose records are the replicas: `host` and `port`, or `srv`"},
	{Key: "pools[].dns.host", Text: "name whose A or AAAA records are the replicas"},
	{Key: "pools[].dns.port", Text: "port of the replicas, with `host`"},
	{Key: "pools[].dns.srv", Text: "name whose SRV records are the replicas"},
	{Key: "pools[].dns.family", Text: "address family; `auto` is IPv4, or IPv6 if there is none"},
	{Key: "pools[].dns.interval", Text: "time between two lookups"},
	{Key: "pools[].cluster", Text: "read, so that the pools of a companion process can be copied here, and not used"},
	{Key: "pools[].engine", Text: "kind of the model servers; `auto` detects it, `custom` needs `metrics`"},
	{Key: "pools[].metrics", Text: "names of the metrics of a `custom` engine, each `name` or `name{label=value}`"},
	{Key: "pools[].metrics.waiting", Text: "waiting requests"},
	{Key: "pools[].metrics.running", Text: "running requests"},
	{Key: "pools[].metrics.kv", Text: "share of the KV cache in use, 0 to 1"},
	{Key: "pools[].metrics.blockTokens", Text: "tokens in a block of the KV cache"},
	{Key: "pools[].metrics.blocks", Text: "blocks of the KV cache"},
	{Key: "pools[].metrics.lora", Text: "a metric with the labels of `vllm:lora_requests_info`"},
	{Key: "pools[].scrape", Text: "how the replicas of this pool are scraped, where it is not as above"},
}, scrapeHelp("pools[].scrape."))

// scrapeHelp is about the keys that there are for all pools and for one.
func scrapeHelp(under string) []conf.Help {
	help := []conf.Help{
		{Key: "port", Text: "port of the metrics; without it, the replica's own"},
		{Key: "path", Text: "path of the metrics; without it, the engine's"},
		{Key: "health", Text: "path that is requested when a scrape fails; without it, the engine's"},
		{Key: "models", Text: "path of the list of models"},
		{Key: "token", Text: "file of a bearer token that is sent with every request"},
		{Key: "tls", Text: "how connections are encrypted; `{}` is TLS with the system's CAs, without it there is none"},
		{Key: "tls.ca", Text: "file of the CAs"},
		{Key: "tls.cert", Text: "file of a client certificate"},
		{Key: "tls.key", Text: "file of its key"},
		{Key: "tls.serverName", Text: "name in the replicas' certificates; without it, their IP address"},
		{Key: "tls.insecureSkipVerify", Text: "whether certificates are not verified"},
	}
	for i := range help {
		help[i].Key = under + help[i].Key
	}
	return help
}
