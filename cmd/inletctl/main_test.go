package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/internal/version"
)

// tool runs a command line and returns its exit code and what it printed.
func tool(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = execute(&interrupts{first: t.Context(), second: t.Context()}, args, &out, &errs)
	return code, out.String(), errs.String()
}

func TestExitCodes(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		file := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(file, []byte(text), 0o644))
		return file
	}
	good := write("good.yaml", "filters: [{bbr: {}}]")
	limited := write("limited.yaml", "filters: [{quota: {anonymous: a, limits: [{name: l, per: [app, ip], requests: 5/min}]}}]")
	model := write("model.yaml", "{apiVersion: inference.networking.x-k8s.io/v1alpha2, kind: InferenceModel, metadata: {name: chat}, spec: {modelName: chat, poolRef: {name: llama}}}")
	pool := write("pool.yaml", "{apiVersion: inference.networking.x-k8s.io/v1alpha2, kind: InferencePool, metadata: {name: llama}, spec: {selector: {a: b}, targetPortNumber: 8000, extensionRef: {name: epp}}}")
	bad := write("bad.yaml", "filters:\n  - bbr: {modles: []}\n  - pickr: {}\n")
	bootstrap, err := os.ReadFile("../../envoy/static/wasm.yaml")
	require.NoError(t, err)
	warned := write("warned.yaml", strings.Replace(string(bootstrap), "envoy.wasm.runtime.v8", "envoy.wasm.runtime.wamr", 1))
	shipped, err := filepath.Glob("../../envoy/static/inlet*.yaml")
	require.NoError(t, err)
	var manifests []string
	for _, pattern := range []string{"base/[^ck]*.yaml", "base/companion.yaml", "module/e*.yaml"} {
		files, err := filepath.Glob("../../envoy/gateway/" + pattern)
		require.NoError(t, err)
		manifests = append(manifests, files...)
	}
	for _, c := range []struct {
		name        string
		env         []string // name, value, ...
		args        []string
		code        int
		out, stderr string
	}{
		{"nothing", nil, nil, exitOK, "Exit codes:", ""},
		{"help", nil, []string{"run", "--help"}, exitOK, "inletctl run --abi module", ""},
		{"version", nil, []string{"--version"}, exitOK, "inletctl version " + version.String() + "\n", ""},
		{"no such command", nil, []string{"rum"}, exitUsage, "", `unknown command "rum"`},
		{"no such flag", nil, []string{"run", "--nosuch"}, exitUsage, "", "See inletctl run --help"},
		{"too many arguments", nil, []string{"demo", "x"}, exitUsage, "", "unknown command"},
		{"a good configuration", nil, []string{"check", good}, exitOK, good + ": ok\n", ""},
		{"whose accounts limits have", nil, []string{"check", limited}, exitOK, limited + ": ok\n  l: limit of 5 requests per minute for each app and ip, in each Envoy\n", ""},
		{"two faults", nil, []string{"check", good, bad}, exitFaults, bad + `:2:11: error: filters[0].bbr: unknown key "modles" (did you mean "models"?) [configuration]` + "\n" + bad + `:3:5: error: filters[1]: unknown filter "pickr" (did you mean "picker"?); known: bbr, quota, guardrail, picker [configuration]` + "\n2 errors, 0 warnings\n", ""},
		{"a bootstrap", nil, []string{"check", "../../envoy/static/wasm.yaml"}, exitOK, "ok", ""},
		{"pools of v1", nil, []string{"convert", model, pool}, exitOK, "inference.networking.k8s.io/v1", "note: InferencePool llama: Inlet picks"},
		{"the chain of models", nil, []string{"convert", "--to", "chain", model}, exitOK, "targets: [{pool: llama}]", ""},
		{"pools of the companion", nil, []string{"convert", "--to=companion", pool}, exitOK, "inferencePool: llama", "note: "},
		{"convert to nothing", nil, []string{"convert", "--to=x", pool}, exitUsage, "", "it is manifests, chain or companion"},
		{"convert no file", nil, []string{"convert"}, exitUsage, "", "which file?"},
		{"convert a configuration", nil, []string{"convert", good}, exitFaults, "", "not a manifest"},
		{"the shipped configurations", nil, append([]string{"check"}, shipped...), exitOK, "inlet-quota.yaml: ok", ""},
		{"a configuration said to be a bootstrap", nil, []string{"check", "--envoy", good}, exitFaults, "no-inlet", ""},
		{"a warning", nil, []string{"check", warned}, exitOK, "0 errors, 1 warning\n", ""},
		{"a warning that counts", nil, []string{"check", "--strict", warned}, exitFaults, "fix: runtime: envoy.wasm.runtime.v8", ""},
		{"no file", nil, []string{"check"}, exitUsage, "", "which file?"},
		{"a file that is not there", nil, []string{"check", filepath.Join(dir, "none")}, exitUsage, "", "no such file"},
		{"a format that is not there", nil, []string{"check", "-o", "xml", good}, exitUsage, "", "text or json"},
		{"all checks", nil, []string{"check", "--list"}, exitOK, "wasm-failure-policy", ""},
		{"good manifests", nil, append([]string{"install", "--check"}, manifests...), exitOK, "ok\n", ""},
		{"manifests without the policies of the base", nil, []string{"install", "--check", "../../envoy/gateway/module/extension.yaml", "../../envoy/gateway/base/gateway.yaml"}, exitFaults, "no route matches the pool \"llama\"", ""},
		{"a manifest without Inlet", nil, []string{"install", "--check", "--strict", "-o", "json", good}, exitFaults, `"no-inlet"`, ""},
		{"installing", nil, []string{"install", good}, exitUsage, "", "with --check only"},
		{"no manifest", nil, []string{"install", "--check"}, exitUsage, "", "which file?"},
		{"all checks of manifests", nil, []string{"install", "--list"}, exitOK, "policy-attachment", ""},
		{"an ABI that is not there", nil, []string{"run", "--abi", "ext_proc"}, exitUsage, "", "--abi=ext_proc: it is wasm or module"},
		{"the same by its variable", []string{"ABI", "ext_proc"}, []string{"demo"}, exitUsage, "", "ABI=ext_proc: it is wasm or module"},
		{"a companion that is not there", nil, []string{"run", "--companion", "none"}, exitUsage, "", "--companion=none: it is process or embedded"},
		{"an embedded companion in a wasm plugin", []string{"COMPANION", "embedded"}, []string{"demo"}, exitUsage, "", "COMPANION=embedded needs the native module: say --abi=module (or ABI=module) too"},
		{"the same by its flag", nil, []string{"demo", "--companion", "embedded"}, exitUsage, "", "--companion=embedded needs the native module: say --abi=module (or ABI=module) too"},
		{"the builds that can be compared", nil, []string{"doctor", "--help"}, exitOK, "libinlet.so, inlet-golang.so or inlet.wasm", ""},
		{"a port that is none", []string{"PORT", "http"}, []string{"run"}, exitUsage, "", "PORT=http: "},
		{"a port out of range", nil, []string{"run", "--port", "0"}, exitUsage, "", "--port=0: it is a number from 1 to 65535"},
		{"the flag wins", []string{"PORT", "http", "WORKERS", "0"}, []string{"run", "--port", "0", "--workers", "1"}, exitUsage, "", "--port=0"},
		{"no workers", []string{"WORKERS", "0"}, []string{"demo"}, exitUsage, "", "WORKERS=0"},
		{"a configuration that is not there", []string{"CONFIG", filepath.Join(dir, "none")}, []string{"run"}, exitUsage, "", "CONFIG: open"},
		{"an Envoy that is none", []string{"ENVOY", good}, []string{"run"}, exitUsage, "", "is not an executable file"},
		{"a module that is none", []string{"ENVOY", bad}, []string{"doctor", "--module", good, "--envoy", good}, exitFaults, "WRONG    module     " + good + " is neither a program nor a library", ""},
		{"an Envoy that is none, by its variable", []string{"ENVOY", bad}, []string{"doctor", "--module", good}, exitFaults, "WRONG    envoy      " + bad + " is neither", ""},
		{"a module and no Envoy", []string{"PATH", dir, "HOME", dir, "INLET_CACHE", dir, "FUNC_E_HOME", "", "FUNC_E_DATA_HOME", ""}, []string{"doctor", "--module", good}, exitFaults, "", "no Envoy on this machine; set ENVOY to one"},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, name := range variables {
				t.Setenv(name, "")
			}
			for i := 0; i < len(c.env); i += 2 {
				t.Setenv(c.env[i], c.env[i+1])
			}
			code, out, stderr := tool(t, c.args...)
			require.Equal(t, c.code, code, out+stderr)
			require.Contains(t, out, c.out)
			require.Contains(t, stderr, c.stderr)
			if c.stderr == "" {
				require.Empty(t, stderr)
			}
		})
	}
}

func TestCheckJSON(t *testing.T) {
	file := filepath.Join(t.TempDir(), "bad.json")
	require.NoError(t, os.WriteFile(file, []byte(`{"filters": [{"picker": {"endpoints": 0}}]}`), 0o644))
	code, out, _ := tool(t, "check", "-o", "json", file)
	require.Equal(t, exitFaults, code)
	var report struct {
		Findings []struct {
			File, Severity, Check, Path, Message string
			Line, Column                         int
		}
		Errors, Warnings int
	}
	require.NoError(t, json.Unmarshal([]byte(out), &report))
	require.Equal(t, 1, report.Errors)
	require.Len(t, report.Findings, 1)
	require.Equal(t, "filters[0].picker.endpoints", report.Findings[0].Path)
	require.Equal(t, 1, report.Findings[0].Line)

	require.NoError(t, os.WriteFile(file, []byte(`{"filters": [{"picker": {}}]}`), 0o644))
	code, out, _ = tool(t, "check", "-o", "json", file)
	require.Equal(t, exitOK, code)
	require.JSONEq(t, `{"findings": [], "errors": 0, "warnings": 0}`, out)
}

// TestHelp: each command says what it does and has examples, whose flags there are.
func TestHelp(t *testing.T) {
	for _, cmd := range newRoot(&interrupts{}).Commands() {
		if !cmd.Hidden && cmd.Name() != "help" && cmd.Name() != "completion" {
			helped(t, cmd)
		}
	}
}

func helped(t *testing.T, cmd *cobra.Command) {
	require.NotEmpty(t, cmd.Short, cmd.CommandPath())
	require.NotEmpty(t, cmd.Long, cmd.CommandPath())
	path := strings.Fields(cmd.CommandPath())
	examples := 0
	for line := range strings.Lines(cmd.Example) {
		line, _, _ = strings.Cut(strings.TrimSpace(line), " |")
		line, _, _ = strings.Cut(line, " >")
		words := strings.Fields(strings.Split(line, "  #")[0])
		for len(words) > 0 && strings.Contains(words[0], "=") {
			words = words[1:] // a variable
		}
		require.Equal(t, path, words[:len(path)], line)
		require.NoError(t, cmd.ParseFlags(words[len(path):]), line)
		require.NoError(t, cmd.ValidateArgs(cmd.Flags().Args()), line)
		examples++
	}
	require.Positive(t, examples, cmd.CommandPath())
	for _, sub := range cmd.Commands() {
		helped(t, sub)
	}
}

// TestInterrupts: the first signal asks to finish, the second ends everything.
func TestInterrupts(t *testing.T) {
	kill := catchInterrupts()
	defer kill.stop()
	wait := func(ctx context.Context) {
		select {
		case <-ctx.Done():
		case <-time.After(10 * time.Second):
			require.FailNow(t, "the signal was not heard")
		}
	}
	require.NoError(t, syscall.Kill(os.Getpid(), syscall.SIGINT))
	wait(kill.first)
	require.NoError(t, kill.second.Err())
	require.NoError(t, syscall.Kill(os.Getpid(), syscall.SIGTERM))
	wait(kill.second)
}
