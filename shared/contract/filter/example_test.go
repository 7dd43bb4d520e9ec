package filter_test

import (
	"fmt"
	"math"

	"github.com/inlet-proxy/inlet/shared/contract/conf"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/hosttest"
	"github.com/inlet-proxy/inlet/shared/reading/llm"
)

// maxTokens refuses requests that ask for too many tokens. It has the hooks of Base but for two.
type maxTokens struct {
	filter.Base
	most int
}

// Needs has the chain wait for the body.
func (f *maxTokens) Needs() filter.Needs { return filter.NeedRequest }

// OnRequest sees what the body says.
func (f *maxTokens) OnRequest(x *filter.Exchange) filter.Verdict {
	if x.Request.MaxTokens > f.most {
		return filter.Deny(filter.Refusal{Refusal: llm.Refusal{
			Status: 400, Code: "too_many_tokens", Param: "max_tokens", Message: fmt.Sprintf("At most %d tokens are allowed.", f.most),
		}})
	}
	return filter.Next
}

var factory = filter.Factory{
	Name:        "max-tokens",
	FailureMode: filter.FailClosed,
	New: func(o *conf.Object, _ *filter.Deps) filter.Filter {
		f := &maxTokens{most: 4096}
		o.Int("most", &f.most, 1, math.MaxInt)
		return f
	},
}

// A filter, in a chain of its own on a host without Envoy.
func Example() {
	scenarios, err := hosttest.Parse("example", []byte(`
name: too many tokens
config: 'filters: [max-tokens: {most: 100}]'
steps: [{request: {body: '{"model":"llama","max_tokens":200}'}, expect: {status: 400}}]
`))
	if err != nil {
		fmt.Println(err)
		return
	}
	gateway, err := hosttest.Native(factory).Start(scenarios[0])
	if err != nil {
		fmt.Println(err)
		return
	}
	outcome, err := gateway.Do(&scenarios[0].Steps[0])
	fmt.Println(outcome.Status, string(outcome.Body), err)
	fmt.Println(gateway.Close())
	// Output:
	// 400 {"error":{"message":"At most 100 tokens are allowed.","type":"invalid_request_error","param":"max_tokens","code":"too_many_tokens"}} <nil>
	// <nil>
}
