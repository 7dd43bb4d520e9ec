package bbr

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/reading/llm"
)

// TestInternalNamesAreNotShown: behind a gateway that has renamed the model, messages contain the name that the client
// used.
func TestInternalNamesAreNotShown(t *testing.T) {
	f := newBBR(t, models)
	for name, c := range map[string]struct {
		headers headers
		want    string
	}{
		"renamed":                 {headers{"x-gateway-model-name": "public", RewriteHeader: "internal"}, "`public`"},
		"in the other spelling":   {headers{"x-llm-d-model-name": "public", "x-llm-d-model-name-rewrite": "internal"}, "`public`"},
		"in both, one of another": {headers{"x-gateway-model-name": "no", RewriteHeader: "other", "x-llm-d-model-name": "public", "x-llm-d-model-name-rewrite": "internal"}, "`public`"},
		"in two spellings mixed":  {headers{"x-gateway-model-name": "public", "x-llm-d-model-name-rewrite": "internal"}, "`internal`"},
		"not renamed":             {headers{"x-gateway-model-name": "public"}, "`internal`"},
		"another was renamed":     {headers{"x-gateway-model-name": "public", RewriteHeader: "other"}, "`internal`"},
		"no name fits a response": {headers{"x-gateway-model-name": "a\nb", RewriteHeader: "internal"}, "`internal`"},
		"the client asked for it": {nil, "`internal`"},
	} {
		x := &filter.Exchange{}
		x.Reset(1)
		x.RequestHeaders = c.headers
		x.Request = &llm.Request{HasModel: true, ModelIsString: true, Model: "internal"}
		v := f.OnRequest(x)
		require.Contains(t, v.Refusal().Message, c.want, name)
	}
}
