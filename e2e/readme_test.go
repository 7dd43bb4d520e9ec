package e2e_test

import (
	"bytes"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/e2e/stack"
	"github.com/inlet-proxy/inlet/internal/check"
)

// block is a fenced block of the README.
type block struct{ language, text string }

func readmeBlocks(t *testing.T) []block {
	t.Helper()
	text, err := os.ReadFile("../README.md")
	require.NoError(t, err)
	var blocks []block
	for _, m := range regexp.MustCompile("(?ms)^```(\\w*)\n(.*?)^```$").FindAllStringSubmatch(string(text), -1) {
		blocks = append(blocks, block{m[1], m[2]})
	}
	require.NotEmpty(t, blocks)
	return blocks
}

// TestReadmeBlocks: a test checks every block of the README.
func TestReadmeBlocks(t *testing.T) {
	for _, b := range readmeBlocks(t) {
		switch {
		case b.language == "yaml":
			_, err := check.Load([]byte(b.text))
			require.NoError(t, err, b.text)
		case b.language == "sh":
			for line := range strings.Lines(b.text) {
				testReadmeCommand(t, strings.TrimSpace(line))
			}
		default:
			t.Errorf("no test for a block of %q:\n%s", b.language, b.text)
		}
	}
}

var (
	makeCommand   = regexp.MustCompile(`^make ([a-z0-9-]+)( +[A-Z]+=\S+)*( +#.*)?$`)
	curlCommand   = regexp.MustCompile(`^(curl .* \\|-d '.*')$`)
	doctorCommand = regexp.MustCompile(`^dist/inletctl doctor --module dist/(libinlet\.so|inlet\.wasm) --envoy \S+$`)
	funcECommand  = regexp.MustCompile(`^func-e run -c envoy/static/(module|wasm)\.yaml$`)
	distCommand   = regexp.MustCompile(`^dist/([a-z]+)(?: check| --config) (\S+)( \S+)*$`)
)

// embeddedCommand runs Envoy with the companion in it.
const embeddedCommand = "envoy -c envoy/static/module-embedded.yaml"

// testReadmeCommand checks one line of a shell block.
func testReadmeCommand(t *testing.T, line string) {
	t.Helper()
	if m := makeCommand.FindStringSubmatch(line); m != nil {
		makefile, err := os.ReadFile("../Makefile")
		require.NoError(t, err)
		require.Regexp(t, `(?m)^`+regexp.QuoteMeta(m[1])+`:`, string(makefile), line)
		return
	}
	if m := distCommand.FindStringSubmatch(line); m != nil {
		require.DirExists(t, "../cmd/"+m[1], line)
		require.FileExists(t, "../"+m[2], line)
		return
	}
	if command, _, _ := strings.Cut(line, " #"); strings.TrimSpace(command) == embeddedCommand {
		return // see TestEmbeddedAsShipped
	}
	if doctorCommand.MatchString(line) || funcECommand.MatchString(line) {
		return // see TestDoctor and TestFuncE
	}
	// testReadmeExample runs the curl command as a whole.
	require.Regexp(t, curlCommand, line, "a command that no test knows")
}

// testReadmeExample runs the README's curl commands that need no other configuration, at this stack's port.
func testReadmeExample(t *testing.T, s *stack.Stack) {
	found := 0
	for _, command := range readmeExamples(t, strings.TrimPrefix(s.URL(), "http://")) {
		if strings.Contains(command, saysHeader) {
			continue // see TestRunGuardrail
		}
		found++
		out := runExample(t, command)
		require.Contains(t, out, `"chat.completion"`)
		require.True(t, strings.HasSuffix(out, "200"), out)
	}
	require.Positive(t, found)
}

// saysHeader tells a simulated replica what to say.
const saysHeader = "x-modelsim-say: "

// readmeExamples are the README's curl commands, for another address.
func readmeExamples(t *testing.T, address string) (commands []string) {
	t.Helper()
	for _, b := range readmeBlocks(t) {
		if b.language == "sh" && strings.HasPrefix(b.text, "curl ") {
			require.Contains(t, b.text, "localhost:8080")
			commands = append(commands, strings.ReplaceAll(b.text, "localhost:8080", address))
		}
	}
	return commands
}

// runExample runs a curl command, and returns what it prints and the status.
func runExample(t *testing.T, command string) string {
	t.Helper()
	var stderr bytes.Buffer
	cmd := exec.CommandContext(t.Context(), "sh", "-c", strings.Replace(command, "curl ", "curl -w '%{http_code}' ", 1))
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	require.NoError(t, err, stderr.String())
	return string(out)
}
