package quota

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/shared/contract/conf"
)

// What is valid and can hardly be meant is a warning, which inletctl check shows.
func TestWarnings(t *testing.T) {
	const sum = "2a97516c354b68848cdbd8f54a226a0a55b21ed138e207ad6c5cbb9c00aa5aea"
	rig := newRig(t, "anonymous: x")
	for document, want := range map[string]string{
		"{products: [{name: p}], keys: {list: [{name: k, sha256: " + sum + "}]}}":                                                 `neither the key "k" nor its app "k" has a product`,
		"{products: [{name: p}], apps: [{name: a}], keys: {list: [{name: k, app: a, sha256: " + sum + "}]}}":                      `neither the key "k" nor its app "a" has a product`,
		"{keys: {list: [{name: k, expires: 2020-01-01T00:00:00Z, sha256: " + sum + "}]}}":                                         "keys.list[0].expires: 1:35: the key has expired",
		"{anonymous: x, products: [{name: trial}], limits: [{name: l, requests: 1/s, match: {products: [trail, t*]}}]}":           `there is no product "trail" (did you mean "trial"?), so this never fits`,
		"{anonymous: shop, apps: [{name: shop}], limits: [{name: l, requests: 1/s, match: {apps: [shpo]}}]}":                      `there is no app "shpo"`,
		"{anonymous: x, developers: [{name: ann}], limits: [{name: l, requests: 1/s, match: {developers: [bob]}}]}":               `there is no developer "bob"`,
		"{keys: {list: [{name: k, sha256: " + sum + "}]}, limits: [{name: l, requests: 1/s, match: {apps: [any], models: [x]}}]}": "",
		"{products: [{name: p}], keys: {list: [{name: k, products: [p], expires: 2999-01-01T00:00:00Z, sha256: " + sum + "}]}}":   "",
	} {
		var warnings []string
		require.NoError(t, conf.DecodeWarn([]byte(document), func(w conf.Error) { warnings = append(warnings, w.Error()) }, func(o *conf.Object) {
			newFilter(o, rig.deps)
		}))
		if want == "" {
			require.Empty(t, warnings, document)
			continue
		}
		require.Len(t, warnings, 1, document)
		require.Contains(t, warnings[0], want)
	}
}
