package endpoint_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/shared/state/endpoint"
)

func TestWhichModelsAreServed(t *testing.T) {
	m := &endpoint.Models{
		Names: []string{"gemma", "gemma-3", "qwen3:8b"},
		Adapters: []endpoint.Adapter{
			{Name: "gemma:poem", Parent: "gemma"}, {Name: "lora", Parent: "elsewhere"}, {Name: "poem", Parent: ""}, {Name: "sql", Parent: "gemma"}, {Name: "sql", Parent: "llama"},
		},
	}
	for name, want := range map[string][2]bool{
		"gemma":         {true, false},
		"sql":           {true, true},
		"gemma:sql":     {true, true},
		"gemma-3:sql":   {true, true}, // another name of the parent
		"llama:sql":     {true, true},
		"other:sql":     {false, false},
		"elsewhere:sql": {false, false},
		":sql":          {true, true},
		"qwen3:8b":      {true, false}, // a name that is listed is no adapter's
		"qwen3:sql":     {false, false},
		"qwen3:8b:sql":  {false, false}, // the first colon counts, as in SGLang
		"gemma:poem":    {true, true},
		"gemma:":        {false, false},
		"gemma:nosuch":  {false, false},
		"gemma:lora":    {true, true},
		"":              {false, false},
		":":             {false, false},
	} {
		serves, adapter := m.Serves(name)
		require.Equal(t, want, [2]bool{serves, adapter}, name)
	}
	a := endpoint.Adapter{Name: "sql", Parent: "gemma"}
	require.True(t, a.Known("sql"))
	require.True(t, a.Known("gemma:sql"))
	for _, name := range []string{"", "gemma", "gemma:", "gemma-sql", "gemma:sqL", "gemmasql", "x:sql", ":sql"} {
		require.False(t, a.Known(name), name)
	}
	require.False(t, endpoint.Adapter{Name: "sql"}.Known(":sql"))
	name := "gemma-3:sql"
	require.Zero(t, testing.AllocsPerRun(10, func() { m.Serves(name) }))
}
