package quota

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/shared/conf"
	"github.com/inlet-proxy/inlet/shared/filter"
)

func newQuota(t testing.TB, header string, keys ...string) *Filter {
	doc := fmt.Sprintf("keys:\n  header: %s\n  list:\n", header)
	for i, key := range keys {
		sum := sha256.Sum256([]byte(key))
		doc += fmt.Sprintf("    - {name: app-%d, sha256: %s}\n", i, hex.EncodeToString(sum[:]))
	}
	var f filter.Filter
	require.NoError(t, conf.Decode([]byte(doc), func(o *conf.Object) { f = newFilter(o, nil) }))
	return f.(*Filter)
}

type headers map[string]string

func (h headers) Get(name string) (string, bool) { v, ok := h[name]; return v, ok }

func TestKeys(t *testing.T) {
	for _, c := range []struct {
		name, header, value string
		code, tenant        string
	}{
		{"right", "x-api-key", "one", "", "app-0"},
		{"another", "x-api-key", "two", "", "app-1"},
		{"wrong", "x-api-key", "three", "invalid_api_key", ""},
		{"empty", "x-api-key", "", "missing_api_key", ""},
		{"missing", "x-api-key", "-", "missing_api_key", ""},
		{"bearer", "authorization", "Bearer one", "", "app-0"},
		{"bearer in capitals", "authorization", "BEARER  two ", "", "app-1"},
		{"basic", "authorization", "Basic one", "missing_api_key", ""},
		{"no scheme", "authorization", "one", "missing_api_key", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newQuota(t, c.header, "one", "two")
			h := headers{c.header: c.value}
			if c.value == "-" {
				delete(h, c.header)
			}
			x := &filter.Exchange{RequestHeaders: h}
			x.Reset(1)
			x.RequestHeaders = h
			v := f.OnRequestHeaders(x)
			require.Equal(t, c.tenant, x.Tenant.Name)
			if c.code != "" {
				require.Equal(t, 401, v.Refusal().Status)
				require.Equal(t, c.code, v.Refusal().Code)
				require.NotContains(t, v.Refusal().Message, "three", "an answer never repeats a key")
				return
			}
			require.Equal(t, filter.Next, v)
			require.Equal(t, []filter.HeaderEdit{{Name: c.header, Remove: true}}, x.Effects().Request)
		})
	}
}

func BenchmarkOnRequestHeaders(b *testing.B) {
	f := newQuota(b, "x-api-key", "one", "two")
	x := &filter.Exchange{}
	h := headers{"x-api-key": "two"}
	b.ReportAllocs()
	for b.Loop() {
		x.Reset(1)
		x.RequestHeaders = h
		if f.OnRequestHeaders(x) != filter.Next {
			b.Fatal("refused")
		}
	}
}
