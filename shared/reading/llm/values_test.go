package llm

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestValues(t *testing.T) {
	var v Values
	text := ` {"id":12345678,"note":"mail\t\u0061b","list":["x",{"":"\ud83d\ude00 y"}],"raw":"{\"k\":\"v\"}","none":""} `
	require.True(t, v.Read([]byte(text)))
	type value struct{ key, text string }
	var all []value
	for _, e := range v.Each {
		all = append(all, value{string(e.Key), string(v.Text[e.From:e.To])})
		from, to := v.Source(e.From, e.To)
		var decoded string
		require.NoError(t, json.Unmarshal([]byte(`"`+text[from:to]+`"`), &decoded))
		require.Equal(t, string(v.Text[e.From:e.To]), decoded)
	}
	require.Equal(t, []value{{"note", "mail\tab"}, {"list", "x"}, {"", "😀 y"}, {"raw", `{"k":"v"}`}}, all)
	from, to := v.Source(v.Each[0].From+5, v.Each[0].From+6)
	require.Equal(t, `\u0061`, text[from:to])

	for _, no := range []string{"", "7", `"x"`, "{", `{"a":}`, `{"a":1} x`, `{"a":1}{}`, "[hidden]"} {
		require.False(t, v.Read([]byte(no)), no)
	}
}
