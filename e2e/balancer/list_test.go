package balancer_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/e2e/stack"
)

// TestList: who gets a request with a list, and why, as replicas go and come.
func TestList(t *testing.T) {
	a, b, c := newReplica(t, "a"), newReplica(t, "b"), newReplica(t, "c")
	s := stack.ForTest(t, stack.Options{
		ABI: stack.Module, NativeLB: true, NoCompanion: true, Chain: trusting, Edit: trust,
		Pools: []stack.Pool{{Name: "llama", Addresses: []string{a.address(), b.address(), c.address()}}},
	})
	const absent = "127.0.0.1:1"
	g := watch(t, s)

	require.Equal(t, result{"b", "1"}, ask(t, s, "llama", b.address(), a.address()))
	g.is(map[string]int{"listed": 1})
	require.Equal(t, result{"c", "1"}, ask(t, s, "llama", absent, c.address()))
	g.is(map[string]int{"next": 1, "skip not_in_cluster": 1})
	require.Contains(t, []string{"a", "b", "c"}, ask(t, s, "llama", absent).replica)
	g.is(map[string]int{"fallback": 1, "skip not_in_cluster": 1})
	seen := map[string]int{}
	for range 60 {
		seen[ask(t, s, "llama").replica]++
	}
	require.Len(t, seen, 3, "without a list all get some")
	g.is(map[string]int{"fallback": 60})

	// health is what the cluster has of a.
	health := func(status string) {
		t.Helper()
		healthy := 3
		if status == "UNHEALTHY" || status == "DEGRADED" {
			healthy = 2
		}
		require.NoError(t, s.SetHealth("llama", status, []string{a.address()}, a.address(), b.address(), c.address()))
		eventually(t, "Envoy knows that a is "+status, func() bool {
			return stat(t, s, "envoy_cluster_membership_healthy", "llama") == healthy
		})
		// The workers are told by the main thread, one after the other.
		eventually(t, "both workers know it", func() bool {
			for range 20 {
				if (ask(t, s, "llama", a.address(), b.address()).replica == "a") != (healthy == 3) {
					return false
				}
			}
			return true
		})
		g = watch(t, s)
	}
	for _, status := range []string{"UNHEALTHY", "DEGRADED"} {
		health(status)
		require.Equal(t, result{"b", "1"}, ask(t, s, "llama", a.address(), b.address()), status)
		g.is(map[string]int{"next": 1, "skip unhealthy": 1})
		for range 40 {
			require.NotEqual(t, "a", ask(t, s, "llama", a.address()).replica, status)
		}
		g.is(map[string]int{"fallback": 40, "skip unhealthy": 40})
		health("HEALTHY")
		require.Equal(t, result{"a", "1"}, ask(t, s, "llama", a.address(), b.address()))
		g.is(map[string]int{"listed": 1})
	}

	// b cannot be reached any more, which nobody has told Envoy.
	b.Close()
	require.Equal(t, result{"c", "2"}, ask(t, s, "llama", b.address(), c.address()), "the next of the list")
	g.is(map[string]int{"listed": 1, "next": 1, "skip tried": 1})
	for range 20 {
		r := ask(t, s, "llama", b.address())
		require.Contains(t, []string{"a", "c"}, r.replica, "the list is used up, and another has not been tried")
		require.Equal(t, "2", r.attempt)
	}
	g.is(map[string]int{"listed": 20, "fallback": 20, "skip tried": 20})

	c.Close()
	for range 20 {
		require.Equal(t, result{"a", "3"}, ask(t, s, "llama", b.address(), c.address()), "two have failed, and the third is none of them")
	}
	g.is(map[string]int{"listed": 20, "next": 20, "fallback": 20, "skip tried": 60})

	require.NoError(t, s.SetHealth("llama", "UNHEALTHY", []string{a.address(), b.address()}, a.address(), b.address()))
	eventually(t, "no host is healthy", func() bool {
		for range 20 {
			if ask(t, s, "llama", a.address()).replica != "503" {
				return false
			}
		}
		return true
	})
	g = watch(t, s)
	require.Equal(t, "503", ask(t, s, "llama", a.address()).replica, "there is no panic mode")
	g.is(map[string]int{"none": 1, "skip unhealthy": 1})
	require.Empty(t, s.EnvoyErrors())
}

// TestOverrideHostIgnoresHealth is where the two policies differ.
func TestOverrideHostIgnoresHealth(t *testing.T) {
	a, b := newReplica(t, "a"), newReplica(t, "b")
	s := stack.ForTest(t, stack.Options{
		ABI: stack.Module, NoCompanion: true, Chain: trusting, Edit: trust,
		Pools: []stack.Pool{{Name: "llama", Addresses: []string{a.address(), b.address()}}},
	})
	require.NoError(t, s.SetHealth("llama", "UNHEALTHY", []string{a.address()}, a.address(), b.address()))
	eventually(t, "no request without a list goes to a", func() bool {
		for range 20 {
			if ask(t, s, "llama").replica == "a" {
				return false
			}
		}
		return true
	})
	require.Equal(t, result{"a", "1"}, ask(t, s, "llama", a.address(), b.address()))
}
