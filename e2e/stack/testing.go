package stack

import "context"

// TB is the part of testing.TB that ForTest uses.
type TB interface {
	Helper()
	Cleanup(func())
	Context() context.Context
	Failed() bool
	Logf(format string, args ...any)
	Fatalf(format string, args ...any)
}

// ForTest starts a stack that ends with the test, and shows its logs if the test failed. Its Envoy may be one that other
// tests have used: see Sharing.
func ForTest(t TB, o Options) *Stack {
	t.Helper()
	// t.Context ends before the cleanups run, which need a working stack.
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	s, err := start(ctx, o, (*Stack).takeEnvoy)
	if err != nil {
		cancel()
		t.Fatalf("%v", err)
		return nil
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%s", s.Logs())
			s.shared.spoil()
		}
		s.Close()
		cancel()
	})
	return s
}
