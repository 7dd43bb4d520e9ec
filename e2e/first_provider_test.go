package e2e_test

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/e2e/stack"
)

// TestFirstProvider does what docs/guardrail-providers.md tells a newcomer: its service, the shipped cluster, its configuration.
func TestFirstProvider(t *testing.T) {
	page, err := os.ReadFile("../docs/guardrail-providers.md")
	require.NoError(t, err)
	_, section, ok := strings.Cut(string(page), "## A first provider\n")
	require.True(t, ok)
	block := func(language string) string {
		m := regexp.MustCompile("(?ms)^```" + language + "\n(.*?)^```$").FindStringSubmatch(section)
		require.NotNil(t, m, language)
		return m[1]
	}
	port := freePort(t)
	service := filepath.Join(t.TempDir(), "service.py")
	require.Contains(t, block("python"), "9000")
	require.NoError(t, os.WriteFile(service, []byte(strings.Replace(block("python"), "9000", strconv.Itoa(port), 1)), 0o600))
	cmd := exec.CommandContext(t.Context(), "python3", service)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _, _ = cmd.Process.Kill(), cmd.Wait() })
	eventually(t, "the service listens", func() (bool, error) {
		conn, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			return false, nil
		}
		return true, conn.Close()
	})

	s := stack.ForTest(t, stack.Options{
		ABI: stack.Module, Chain: block("yaml"),
		Pools: []stack.Pool{
			{Name: "llama", Replicas: 1, Args: []string{"--model", "llama-3-8b", "--speed", "0"}},
			{Name: "gemma", Replicas: 1, Args: []string{"--model", "gemma", "--speed", "0"}},
		},
		Edit: func(b *bootstrapv3.Bootstrap) {
			for _, c := range providerClusters(t).GetStaticResources().GetClusters() {
				if c.GetName() == "local-webhook" {
					a := c.GetLoadAssignment().GetEndpoints()[0].GetLbEndpoints()[0].GetEndpoint().GetAddress().GetSocketAddress()
					a.PortSpecifier = &corev3.SocketAddress_PortValue{PortValue: uint32(port)}
					b.StaticResources.Clusters = append(b.StaticResources.Clusters, c)
				}
			}
		},
	})
	a := post(t.Context(), s, chatPath, smallChat)
	require.True(t, a.ok(), "%d %s %v", a.status, a.body, a.err)
	a = post(t.Context(), s, chatPath, `{"model":"llama","messages":[{"role":"user","content":"What is Nightfall?"}]}`)
	require.Equal(t, 400, a.status)
	require.Contains(t, string(a.body), "content_policy_violation")
	entry, err := s.Access(t.Context(), a.header.Get("x-request-id"))
	require.NoError(t, err)
	require.Contains(t, entry.Why, "guardrail=screening/nightfall/block")
	a = post(t.Context(), s, chatPath, `{"model":"gemma","messages":[{"role":"user","content":"What is Nightfall?"}],"max_tokens":4}`)
	require.True(t, a.ok(), "the policy is for llama: %d %s %v", a.status, a.body, a.err)
}
