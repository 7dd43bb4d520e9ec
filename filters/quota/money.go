package quota

import (
	"math"

	"github.com/inlet-proxy/inlet/shared/contract/conf"
	"github.com/inlet-proxy/inlet/shared/reading/llm"
)

// price is what one token of a model costs, in thousandths of a nano unit. In the document it is for a
// million tokens: 1 there is 1e9 nano units for 1e6 tokens, or 1e6 thousandths of a nano unit for one.
type price struct{ prompt, completion, cached int64 }

const (
	perUnit = 1_000_000
	// maxPrice and maxTokens keep costs below the bounds of an integer.
	maxPrice  = 1_000_000
	maxTokens = 1 << 22
)

func readPrice(o *conf.Object) price {
	prompt, completion := 0.0, 0.0
	o.Float("prompt", &prompt, 0, maxPrice)
	o.Float("completion", &completion, 0, maxPrice)
	cached := prompt
	o.Float("cached", &cached, 0, maxPrice)
	o.Required("prompt", "completion")
	for _, p := range [...]struct {
		key   string
		value float64
	}{{"prompt", prompt}, {"completion", completion}, {"cached", cached}} {
		if o.Has(p.key) && p.value > 0 && p.value < 1.0/perUnit {
			o.Errorf(p.key, "%v is less than the smallest price, 0.000001", p.value)
		}
	}
	return price{scale(prompt), scale(completion), scale(cached)}
}

func scale(p float64) int64 { return int64(math.Round(p * perUnit)) }

// free reports whether nothing costs anything.
func (p price) free() bool { return p == price{} }

// isFree reports whether nothing of what a request of an API takes costs anything.
func (p price) isFree(api llm.API) bool {
	if !completes(api) {
		p.completion = 0
	}
	return p.free()
}

// of is what tokens cost in nano units, rounded up once.
func (p price) of(u llm.Usage) int64 {
	const thousandths = 1000
	cached := min(u.Cached, u.Prompt)
	sum := int64(u.Prompt-cached)*p.prompt + int64(cached)*p.cached + int64(u.Completion)*p.completion
	return (sum + thousandths - 1) / thousandths
}

// dearest is the price when nothing comes from a cache, or, if that costs more, when all of the prompt does.
func (p price) dearest() price {
	p.prompt = max(p.prompt, p.cached)
	p.cached = p.prompt
	return p
}
