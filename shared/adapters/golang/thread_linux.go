package golang

import "syscall"

// onMainThread reports whether Envoy's main thread has called, which reads configurations.
func onMainThread() bool { return syscall.Gettid() == syscall.Getpid() }
