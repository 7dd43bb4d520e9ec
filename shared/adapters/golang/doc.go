// Package golang runs a chain inside Envoy as a plugin of the contrib filter
// envoy.filters.http.golang: it turns the callbacks of its API into calls of a
// [chain.Stream] and offers the chain a [chain.Host]. It holds no policy.
//
// It uses the API's interfaces only. The package that links them to Envoy
// (contrib/golang/filters/http/source/go/pkg/http) calls Envoy when it is loaded, so only the
// main package of a plugin imports it: see cmd/bundle-golang.
//
// # What one has to know about Envoy and its API
//
// Read in the sources of Envoy 1.39.1, and played with a program that stands in for Envoy
// (package chost). No Envoy with contrib extensions has run it.
//
//   - Envoy takes Continue and SendLocalReply for a half of an exchange only while it has
//     shown something of it and waits: within a callback, and after one that returned
//     Running. At any other time the API panics.
//   - Held with StopAndBuffer, a body is shown once, at its end; with trailers, the
//     request may go on without a decision. Held with StopAndBufferWatermark, its chunks are
//     shown one by one, and lost when trailers come. So chunks are taken out
//     (StopNoBuffer) and put before the last one, or before the trailers, when all goes on.
//     Envoy's buffer limits do not count them; the chain's own do.
//   - While Envoy waits (Running) it buffers what comes, and slows the sender down when that is too much.
//   - What is asked on a goroutine and not on the worker's thread may block until the worker is
//     free: dynamic metadata, filter state, attributes. The chain asks for them in callbacks only.
//   - A filter's own local reply passes its response callbacks.
//   - A panic in a callback is answered with 500; one in the making of a filter, and in a goroutine, ends Envoy.
//     All have a barrier here.
//   - A response cannot be ended early. One that Inlet has ended is cut after [chain.EndGrace], as in wasm.
//   - While a request is on its way, and no byte of its response has come, a local reply cannot be given: a refusal by a call
//     beside the request waits for the response.
//   - There are no calls: [cluster].
//   - There is no turn of the main loop, so a poller or an embedded companion begins when the configuration is made,
//     also if Envoy only validates it, or refuses it later for something else. Destroy ends it.
//   - The configuration of a route is parsed without callbacks, perhaps in the midst of a request, where
//     an error ends Envoy.
//   - Envoy lets all requests pass, unseen, that a plugin_name leads to which the library does not know.
package golang
