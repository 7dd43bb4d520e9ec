// Package wasm runs a chain of filters in a proxy-wasm host such as Envoy. It
// is the only package that knows the proxy-wasm SDK, and it holds no policy:
// it feeds a chain.Stream with the callbacks of its exchange and offers it a
// chain.Host, a kv.Store on Envoy's shared data, metrics, and the snapshot that
// the companion serves.
//
// Envoy runs one VM per worker, one more on the main thread, and each is single
// threaded. VMs share nothing but the shared data of their vm_id. One VM may
// serve several plugins (entries with the same code and vm_id): each of them
// has its own chain, worker id and tick.
//
// # What the host does, and the SDK does not say
//
// Checked on Envoy 1.40.0 (V8) with the SDK of January 2026.
//
//   - A Pause from the request headers stops everything, so that no body ever
//     comes, unless the plugin has allow_on_headers_stop_iteration: true. The
//     adapter cannot see that setting; it warns when a request looks like it.
//   - While a body is held, the size that its callback tells is that of all of
//     it. After HTTP/2 trailers no body callback says that it was the last.
//   - Of a body only a prefix can be replaced ([0,n), set_buffer_bytes).
//   - Setting a header that is there more than once changes the first only.
//   - A local reply comes back through the response callbacks of the exchange.
//   - A callout belongs to the plugin, not to its exchange: it is answered also
//     when the exchange is gone. The SDK drops such an answer.
//   - Envoy answers a callout itself, with 503 or 504, when the service cannot
//     be reached or is too slow. Such an answer lacks the header
//     x-envoy-upstream-service-time, and counts as none here.
//   - The SDK panics when the host hands over an empty buffer, and when a
//     counter is incremented by 0. So neither is asked for here.
//   - Access-log callbacks come also for exchanges whose headers the plugin
//     never saw.
//   - Shared data outlives a VM. A new one finds the last snapshot there, with
//     the time at which it was received.
//   - A trapped VM takes its exchanges along: their OnDone never runs. Its shared
//     counters expire with its lease; a gauge in Envoy's stats keeps what it
//     had added.
package wasm
