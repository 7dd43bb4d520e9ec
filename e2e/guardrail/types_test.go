package guardrail_test

import (
	"bufio"
	"encoding/json"
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/filters/guardrail/provider"
	"github.com/inlet-proxy/inlet/shared/contract/conf"
)

// TestTypes: the newest types that Google publishes read Inlet's requests, and Inlet reads what they write.
func TestTypes(t *testing.T) {
	py, err := installed()
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), py.path, "-s", "testdata/armor_types.py")
	cmd.Env = append(os.Environ(), py.env()...)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	lines := bufio.NewReader(out)

	var p provider.Provider
	require.NoError(t, conf.Decode([]byte("template: "+template), func(o *conf.Object) {
		for _, known := range provider.Protocols {
			if known.Name == "modelArmor" {
				p = known.Read(o)
			}
		}
	}))
	const text = "a \"quoted\" \\ text,\nwith é and 🙂"
	for _, q := range []*provider.Question{
		{Text: []byte(text)}, {Text: []byte(text), Response: true}, {Text: []byte(text), Response: true, Prompt: []byte("why?")},
	} {
		r := p.Ask(q)
		require.NoError(t, json.NewEncoder(in).Encode(map[string]string{"path": r.Path, "body": string(r.Body)}))
		line, err := lines.ReadBytes('\n')
		require.NoError(t, err)
		var said map[string]string
		require.NoError(t, json.Unmarshal(line, &said))
		require.Equal(t, text, said["text"])
		for kind, want := range map[string]provider.Verdict{
			"pass":   {},
			"block":  {Blocked: true, Why: []string{"sdp"}},
			"redact": {Redacted: true, Text: "[MASKED]", Why: []string{"sdp"}},
			"image":  {Blocked: true, Why: []string{"sdp"}},
		} {
			got, err := p.Read(q, 200, []byte(said[kind]))
			require.NoError(t, err, said[kind])
			require.Equal(t, want, got, said[kind])
		}
	}
	require.NoError(t, in.Close())
	require.NoError(t, cmd.Wait())
}
