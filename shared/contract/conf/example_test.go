package conf_test

import (
	"fmt"
	"time"

	"github.com/inlet-proxy/inlet/shared/contract/conf"
)

// A quota filter reads its part of the document: defaults first, then one line per key.
func ExampleDecode() {
	doc := []byte(`
quota:
  keys: {header: x y}
  timeout: 10 min
  modle: strict
`)
	header, timeout, mode := "x-api-key", 800*time.Millisecond, "strict"
	err := conf.Decode(doc, func(o *conf.Object) {
		o.Object("quota", func(o *conf.Object) {
			o.Object("keys", func(o *conf.Object) {
				o.String("header", &header, conf.HeaderName)
			})
			o.Duration("timeout", &timeout, time.Millisecond, time.Hour)
			o.Enum("mode", &mode, "strict", "lenient")
		})
	})
	fmt.Println(err)
	// Output:
	// quota.keys.header: 3:18: "x y" is not a header name
	// quota.timeout: 4:12: "10 min" is not a duration (want 800ms, 10s, 1h30m)
	// quota: 5:3: unknown key "modle" (did you mean "mode"?)
}

// Names may be free, and what a value means may be the caller's own business.
func ExampleObject_Each() {
	limits := map[string]int{}
	err := conf.Decode([]byte(`limits: {llama: 100/min, gemma: plenty}`), func(o *conf.Object) {
		o.Object("limits", func(o *conf.Object) {
			o.Each(func(model string, v *conf.Value) {
				var rate string
				if !v.String(&rate, conf.NotEmpty) {
					return
				}
				var n int
				if _, err := fmt.Sscanf(rate, "%d/min", &n); err != nil {
					v.Errorf("%q is not a rate (want 100/min)", rate)
				}
				limits[model] = n
			})
		})
	})
	fmt.Println(limits["llama"])
	fmt.Println(err)
	// Output:
	// 100
	// limits.gemma: 1:33: "plenty" is not a rate (want 100/min)
}
