// Package module runs a chain inside Envoy as a native dynamic module: it turns
// the callbacks of Envoy's Go SDK into calls of a [chain.Stream] and offers the
// chain a [chain.Host] on top of the SDK's handles. It holds no policy.
//
// It uses the SDK's interfaces only, so that it can be tested without Envoy.
// The C entry points that Envoy looks up are linked by package export, which
// the main package of a module imports besides this one:
//
//	import _ "github.com/inlet-proxy/inlet/shared/adapters/module/export"
//
//	func init() { module.Serve(filters.All...) } // main does not run in a shared library
//	func main() {}
//
//	go build -buildmode=c-shared -ldflags '-X runtime.godebugDefault=cgocheck=0' -o dist/libinlet.so ./cmd/bundle-module
//
// # What one has to know about Envoy and its SDK
//
// Checked on Envoy 1.40.0, and in the sources of the SDK that go.mod pins.
//
//   - The SDK hands Go pointers to Envoy as ids. Go's cgo check takes that for a
//     mistake and aborts Envoy when it loads the module, hence the flag above;
//     it spares the users of the module from setting GODEBUG for Envoy.
//   - The SDK recovers no panic, and a panic that leaves a callback or a
//     goroutine ends the Envoy process. Every entry here has a barrier: the
//     panic is logged and counted, and its request refused with 500.
//   - A filter that is nil lets its request pass unseen. When even making one
//     fails, a filter takes its place that refuses.
//   - Strings and bytes of Envoy alias its memory. Header values are copied,
//     since the exchange keeps them; body bytes are looked at in place.
//   - OnRequestBody's argument holds the new bytes only; what came before is in
//     BufferedRequestBody. Behind another filter that buffers, the argument is
//     that very buffer, with all bytes from the first on. With trailers there is
//     no last OnRequestBody at all.
//   - Envoy's buffers can be drained at the front and added to at the end,
//     nothing else. Over its limit the buffer of a held request answers 413 at
//     once, so an edit must never let it hold the old bytes and the new ones.
//   - A header set to "" is removed, and GetOne cannot tell an empty header from
//     one that is not there.
//   - The route stays as it was chosen until ClearRouteCache.
//   - After a local reply of the filter itself no response callbacks come, only
//     OnStreamComplete and OnDestroy. A local reply of another filter that stands
//     before comes without OnRequestHeaders.
//   - Metrics are defined while the configuration is created and never after,
//     and recorded through a stream's handle on that stream's thread. A series
//     ends with the last configuration that recorded a sample of it.
//   - A route's configuration (CreatePerRoute) has no handle: no metrics, no
//     scheduler, no calls. Envoy reads static routes before the listener's
//     filters. The SDK does not tell when Envoy drops it.
//   - A configuration lives until its own calls have ended, too.
//   - A key of the filter state can be written once. It is written when the
//     stream completes, which is before the access log.
//   - A local reply, and a request that goes on, may run the stream's last
//     callbacks before the call returns.
//   - A callout to a cluster without a healthy host cannot be started. One that
//     cannot connect, is reset or timed out comes back as an answer that Envoy
//     made up, 503 or 504; it is told from a service's own by the missing
//     x-envoy-upstream-service-time.
//   - A configuration is created by `envoy --mode validate` too: nothing there
//     may touch the network. It is destroyed on whichever thread lets go last.
//   - Go's scheduler knows nothing of Envoy's --concurrency. [Serve] bounds it to
//     the threads that call Go, and two more if the companion is embedded;
//     INLET_GOMAXPROCS sets another bound.
//   - Only one Go library can be loaded into a process, and it stays until the
//     process ends: a new version of the module needs a (hot) restart.
package module
