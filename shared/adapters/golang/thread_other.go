//go:build !linux

package golang

// onMainThread cannot tell here, so that no configuration of a route is refused in a way that may end Envoy.
func onMainThread() bool { return false }
