package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/tidwall/gjson"

	"github.com/inlet-proxy/inlet/e2e/redisbin"
)

// quotaCompanion is the command, with quotas.
type quotaCompanion struct {
	t            *testing.T
	proxies, url string // of what proxies use, and of the admin API
	stop         func()
}

// startQuota runs the command with a section "quota" that has an admin API on a random port, and a secret token.
func startQuota(t *testing.T, store string) *quotaCompanion {
	t.Helper()
	dir := t.TempDir()
	file, token := filepath.Join(dir, "companion.yaml"), filepath.Join(dir, "token")
	require.NoError(t, os.WriteFile(token, []byte("secret"), 0o600))
	require.NoError(t, os.WriteFile(file, fmt.Appendf(nil, "pools: [{name: a, static: [\"127.0.0.1:9\"]}]\nquota:\n  admin: {listen: \"127.0.0.1:0\", tokenFile: %q}\n  %s\n", token, store), 0o600))
	ctx, cancel := context.WithCancel(context.Background())
	read, write := io.Pipe()
	cmd := command()
	cmd.SetOut(write)
	cmd.SetErr(io.Discard)
	cmd.SetArgs([]string{"--config", file, "--listen", "127.0.0.1:0"})
	done := make(chan error, 1)
	go func() { done <- cmd.ExecuteContext(ctx) }()
	lines := bufio.NewReader(read)
	address := func(before string) string {
		line, err := lines.ReadString('\n')
		require.NoError(t, err)
		address, ok := strings.CutPrefix(strings.TrimSpace(line), before)
		require.True(t, ok, line)
		return "http://" + address
	}
	c := &quotaCompanion{t: t, proxies: address("companion listening on "), url: address("companion serving the admin API on ")}
	stopped := false
	c.stop = func() {
		if !stopped {
			stopped = true
			cancel()
			require.NoError(t, <-done)
		}
	}
	t.Cleanup(c.stop)
	return c
}

func (c *quotaCompanion) do(method, url, body string) (int, string) {
	c.t.Helper()
	req, err := http.NewRequest(method, url, strings.NewReader(body))
	require.NoError(c.t, err)
	req.Header.Set("Authorization", "Bearer secret")
	resp, err := http.DefaultClient.Do(req)
	require.NoError(c.t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	require.NoError(c.t, err)
	return resp.StatusCode, string(text)
}

// use says what a proxy uses, and returns the response.
func (c *quotaCompanion) use(used, need int) gjson.Result {
	c.t.Helper()
	status, text := c.do("POST", c.proxies+"/v1/quota", fmt.Sprintf(
		`{"proxy":"p","t":1,"accounts":[{"k":"trial/requests:1mo/app=shop","q":%d,"p":"1mo","l":5,"s":%d,"u":%d,"g":%d,"m":%d,"n":%d}]}`,
		time.Now().UnixMicro(), c.start(), used, used, need, need))
	require.Equal(c.t, http.StatusOK, status, text)
	return gjson.Parse(text)
}

// start is when the month began, as the companion has it.
func (c *quotaCompanion) start() int64 {
	status, text := c.do("POST", c.proxies+"/v1/quota", `{"proxy":"p","accounts":[{"k":"trial/requests:1mo/app=shop","p":"1mo","l":5}]}`)
	require.Equal(c.t, http.StatusOK, status, text)
	return gjson.Get(text, "accounts.0.s").Int()
}

// A month's quota and the directory survive a restart, with a journal and with Redis; the metrics say what happened.
func TestQuotaSurvivesARestart(t *testing.T) {
	redis, err := redisbin.Start(t.Context(), t.TempDir())
	require.NoError(t, err)
	t.Cleanup(redis.Stop)
	for name, store := range map[string]struct{ config, metric string }{
		"journal": {fmt.Sprintf("store: {dir: %q}", t.TempDir()), "inlet_companion_quota_journal_failing 0"},
		"redis":   {fmt.Sprintf("store: {redis: {addresses: [%q]}}", redis.Address()), "inlet_companion_quota_redis_up 1"},
	} {
		t.Run(name, func(t *testing.T) {
			c := startQuota(t, store.config)
			status, text := c.do("POST", c.url+"/v1/developers", `{"name": "ann"}`)
			require.Equal(t, http.StatusCreated, status, text)
			for c.use(0, 3).Get("accounts.0.g").Int() < 3 { // until it has settled
			}
			require.Equal(t, int64(2), c.use(3, 0).Get("accounts.0.f").Int())
			_, text = c.do("GET", c.proxies+"/metrics", "")
			lines := strings.Split(text, "\n")
			for _, want := range []string{
				store.metric, "inlet_companion_quota_accounts 1", "inlet_companion_quota_proxies 1", "inlet_companion_quota_grants_total 1",
				`inlet_companion_quota_exchanges_total{result="failed"} 0`, "inlet_companion_quota_resets_total 0",
			} {
				require.True(t, slices.Contains(lines, want), want)
			}
			c.stop()

			c = startQuota(t, store.config)
			reply := c.use(3, 3)
			require.Equal(t, "ann", reply.Get("keys.developers.0.name").Str)
			require.Equal(t, int64(3), reply.Get("accounts.0.v").Int())
			require.Equal(t, int64(3), reply.Get("accounts.0.g").Int(), "three more are not there")
			require.Equal(t, int64(5), c.use(3, 2).Get("accounts.0.g").Int())
		})
	}
}

func TestWithoutQuota(t *testing.T) {
	c := startCompanion(t, nil)
	resp, err := http.Post(c.url+"/v1/quota", "application/json", strings.NewReader("{}"))
	require.NoError(t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Equal(t, http.StatusNotFound, resp.StatusCode)
	require.Equal(t, "this companion shares no quotas: its configuration has no \"quota\"\n", string(text))
	_, metrics := c.get("/metrics")
	require.NotContains(t, metrics, "inlet_companion_quota")
}

func TestQuotaThatCannotStart(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "companion.yaml")
	for _, c := range [][2]string{
		{"{keys: " + dir + "/none}", "quota.keys: " + dir + "/none: open " + dir + "/none: no such file"},
		{"{admin: {listen: \"127.0.0.1:0\", tokenFile: " + dir + "/none}}", "quota.admin.tokenFile: open " + dir + "/none"},
		{"{store: {dir: " + file + "}}", "quota.store.dir: mkdir " + file},
		{"{store: {redis: {addresses: [\"127.0.0.1:9\"], passwordFile: " + dir + "/none}}}", "quota.store.redis.passwordFile: open"},
	} {
		require.NoError(t, os.WriteFile(file, []byte("pools: [{name: a, static: [\"127.0.0.1:9\"]}]\nquota: "+c[0]), 0o600))
		out, _, err := execute(t.Context(), "--config", file, "--listen", "127.0.0.1:0")
		require.ErrorContains(t, err, c[1])
		require.Empty(t, out, "it does not listen")
	}
}

func TestCheckOfQuota(t *testing.T) {
	dir := t.TempDir()
	file, keys, token := filepath.Join(dir, "companion.yaml"), filepath.Join(dir, "keys.yaml"), filepath.Join(dir, "token")
	const section = "pools: [{name: a, static: [\"127.0.0.1:9\"]}]\nquota: {keys: %q, admin: {tokenFile: %q}, store: {redis: {addresses: [\"127.0.0.1:9\"], passwordFile: %q, tls: {ca: %q}}}}"
	require.NoError(t, os.WriteFile(file, fmt.Appendf(nil, section, keys, token, token, token), 0o600))
	require.NoError(t, os.WriteFile(keys, []byte("apps: [{name: shop, products: [none]}]"), 0o600))
	_, _, err := execute(t.Context(), "--config", file, "--check")
	require.ErrorContains(t, err, `app "shop": there is no product "none"`)
	require.ErrorContains(t, err, "quota.admin.tokenFile: open "+token)
	require.ErrorContains(t, err, "quota.store.redis.passwordFile: open "+token)
	require.NoError(t, os.WriteFile(keys, []byte("apps: [{name: shop}]"), 0o600))
	require.NoError(t, os.WriteFile(token, []byte("secret"), 0o600))
	out, _, err := execute(t.Context(), "--config", file, "--check")
	require.EqualError(t, err, "quota.store.redis.tls: "+token+": contains no certificate")
	require.Contains(t, out, "quota: "+keys+": 0 keys, 1 apps, 0 products\n")
}

func TestLoopback(t *testing.T) {
	for address, want := range map[string]bool{"127.0.0.1:1": true, "[::1]:1": true, "localhost:1": true, "0.0.0.0:1": false, ":1": false, "10.0.0.1:1": false, "x": false} {
		require.Equal(t, want, isLoopback(address), address)
	}
}
