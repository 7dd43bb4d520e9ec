package chain

import (
	"slices"
	"strings"

	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/reading/llm"
)

// passes reports whether a path passes without any filter, by configuration.
// An entry matches the path itself and everything below it.
func (c *Chain) passes(path string) bool {
	return slices.ContainsFunc(c.passThrough, func(p string) bool {
		rest, ok := strings.CutPrefix(path, strings.TrimSuffix(p, "/"))
		return ok && (rest == "" || rest[0] == '/' || rest[0] == '?')
	})
}

// match returns the API that a path addresses, or llm.Unknown, and the path as
// servers know it: a slash at its end is one too many for them, which they answer
// with a redirect or 404, unless it is configured with one.
func (c *Chain) match(path string) (api llm.API, known string) {
	if api = llm.MatchAmong(c.paths, path, c.pathPrefix); api != llm.Unknown {
		return api, path
	}
	plain := trimSlash(path)
	if api = llm.MatchAmong(c.paths, plain, c.pathPrefix); api == llm.Unknown {
		api = llm.Match(plain, c.pathPrefix)
	}
	return api, plain
}

// trimSlash takes the slash off the end of a path, before its query.
func trimSlash(path string) string {
	end := strings.IndexByte(path, '?')
	if end < 0 {
		return strings.TrimSuffix(path, "/")
	}
	if before, ok := strings.CutSuffix(path[:end], "/"); ok {
		return before + path[end:]
	}
	return path
}

// takes reports whether an API is asked by a method.
func takes(api llm.API, method string) bool {
	if api == llm.Models {
		return method == "GET" || method == "HEAD"
	}
	return method == "POST"
}

// realtime is the path of an API that there is by WebSocket only.
var realtime = []llm.Operation{{Path: "/v1/realtime", API: llm.Other}}

// upgrades reports whether the client asks for another protocol, such as WebSocket.
// Such a request has no end, so that its body can never be read. Offering
// HTTP/2 (h2c) changes nothing as long as nobody accepts.
func upgrades(h filter.Headers) bool {
	protocol, _ := h.Get("upgrade")
	protocol = strings.TrimSpace(protocol)
	if protocol == "" || strings.EqualFold(protocol, "h2c") {
		return false
	}
	if strings.EqualFold(protocol, "websocket") {
		return true
	}
	for n := 0; ; n++ {
		options, ok := h.At("connection", n)
		if !ok {
			return false
		}
		for option := range strings.SplitSeq(options, ",") {
			if strings.EqualFold(strings.TrimSpace(option), "upgrade") {
				return true
			}
		}
	}
}
