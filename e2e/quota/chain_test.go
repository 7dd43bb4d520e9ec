package quota_test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
)

// models are what all chains here serve.
const models = `filters:
  - bbr:
      models:
        - {name: llama, targets: [{model: llama-3-8b, pool: llama}]}
        - {name: seen, targets: [{pool: seen}]}
`

// keyOf is the key of a caller with that name. It is long enough to be found within longer words.
func keyOf(name string) string { return "key-of-" + strings.ReplaceAll(name, " ", "-") }

// listed is a key in the configuration.
func listed(name, product string) string {
	sum := sha256.Sum256([]byte(keyOf(name)))
	return fmt.Sprintf("{name: %s, products: [%s], sha256: %s}", strings.ReplaceAll(name, " ", "-"), product, hex.EncodeToString(sum[:]))
}

// sharedChain has a product for each kind of test, and a key for each test, so that none counts what another one did.
// Windows begin with the first request, so that no test waits for one.
func sharedChain() string {
	keys := []string{
		listed("one Envoy", "exact"), listed("two Envoys", "exact"),
		listed("anybody", "free"), listed("narrow", "narrow"), listed("soak", "free"), listed("burst", "burst"),
	}
	return models + `  - quota:
      keys:
        from: [x-api-key, authorization, x-team-key]
        query: [key]
        list: [` + strings.Join(keys, ", ") + `]
      products:
        - {name: exact, start: flexi, requests: 100/30s}
        - {name: free, requests: 1000M/day, tokens: {total: 1000M/day, prompt: 1000M/day, completion: 1000M/day}}
        - {name: burst, start: flexi, tokens: {total: ` + fmt.Sprint(burstLimit) + `/hour}}
        - {name: narrow, operations: [{path: /v1/chat/completions, methods: [POST]}], models: [llama]}
      onStoreFailure: FailClosed # on a busy machine the companion may be late, and a share of the limit is not exact
  - picker: {profile: sticky}
companion: {cluster: inlet-companion}
`
}
