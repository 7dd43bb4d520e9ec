package upstream

import (
	"bytes"
	"fmt"
	"strings"
)

// Bodies of responses, as vLLM writes them.
const (
	// Completion is the response to a chat.
	Completion = `{"id":"chatcmpl-0a1b2c3d4e5f60718293a4b5c6d7e8f9","object":"chat.completion","created":1767225600,"model":"` + Model + `",` +
		`"choices":[{"index":0,"message":{"role":"assistant","content":" word","tool_calls":[]},"logprobs":null,"finish_reason":"length"}],` +
		`"usage":{"prompt_tokens":1000,"total_tokens":1001,"completion_tokens":1},"prompt_logprobs":null}`
	word  = " word"
	event = `data: {"id":"chatcmpl-0a1b2c3d4e5f60718293a4b5c6d7e8f9","object":"chat.completion.chunk","created":1767225600,"model":"` + Model + `",` +
		`"choices":[{"index":0,"delta":{"content":"` + word + `"},"logprobs":null,"finish_reason":null}]}` + "\n\n"
	usage = `data: {"id":"chatcmpl-0a1b2c3d4e5f60718293a4b5c6d7e8f9","object":"chat.completion.chunk","created":1767225600,"model":"` + Model + `",` +
		`"choices":[],"usage":{"prompt_tokens":1000,"total_tokens":1200,"completion_tokens":200}}` + "\n\n"
	doneEvent = "data: [DONE]\n\n"
)

// Stream is the body of a streamed response of n events and [DONE]; the last event reports the usage.
func Stream(n int) string { return strings.Repeat(event, n-1) + usage + doneEvent }

var (
	completion = answer("application/json", Completion)
	modelList  = answer("application/json", `{"object":"list","data":[{"id":"`+Model+`","object":"model","created":1767225600,"owned_by":"vllm"}]}`)
	streamHead = []byte("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n")
	eventChunk = chunk(event)
	lastChunks = append(append(chunk(usage), chunk(doneEvent)...), "0\r\n\r\n"...)
)

func answer(contentType, body string) []byte {
	return fmt.Appendf(nil, "HTTP/1.1 200 OK\r\ncontent-type: %s\r\ncontent-length: %d\r\n\r\n%s", contentType, len(body), body)
}

func chunk(data string) []byte { return fmt.Appendf(nil, "%x\r\n%s\r\n", len(data), data) }

// running is the placeholder for the number of running requests in a page of metrics.
var running = []byte("@@")

// metricsPage is a page with vLLM's names, padded with histograms to about size bytes.
func metricsPage(size int) []byte {
	labels := `{engine="0",model_name="` + Model + `"}`
	var b bytes.Buffer
	fmt.Fprintf(&b, "# TYPE vllm:num_requests_running gauge\nvllm:num_requests_running%s %s\n", labels, running)
	fmt.Fprintf(&b, "# TYPE vllm:num_requests_waiting gauge\nvllm:num_requests_waiting%s 0.0\n", labels)
	fmt.Fprintf(&b, "# TYPE vllm:kv_cache_usage_perc gauge\nvllm:kv_cache_usage_perc%s 0.25\n", labels)
	fmt.Fprintf(&b, "# TYPE vllm:cache_config_info gauge\nvllm:cache_config_info{block_size=\"16\",engine=\"0\",num_gpu_blocks=\"27000\"} 1.0\n")
	fmt.Fprintf(&b, "# TYPE vllm:lora_requests_info gauge\nvllm:lora_requests_info{max_lora=\"0\",running_lora_adapters=\"\",waiting_lora_adapters=\"\"} 1767225600.0\n")
	for i := 0; b.Len() < size; i++ {
		name := fmt.Sprintf("vllm:request_stage_%d_time_seconds", i)
		fmt.Fprintf(&b, "# HELP %s Histogram of the time of a stage of requests.\n# TYPE %s histogram\n", name, name)
		for _, le := range []string{"0.3", "0.5", "0.8", "1.0", "1.5", "2.0", "2.5", "5.0", "10.0", "15.0", "20.0", "30.0", "40.0", "50.0", "60.0", "+Inf"} {
			fmt.Fprintf(&b, "%s_bucket{engine=\"0\",le=\"%s\",model_name=\"%s\"} 1234.0\n", name, le, Model)
		}
		fmt.Fprintf(&b, "%s_count%s 1234.0\n%s_sum%s 567.8901\n", name, labels, name, labels)
	}
	return b.Bytes()
}

// metrics is the current page: one gauge changes with each scrape, so that there is always something to report.
func (r *Replicas) metrics() []byte {
	r.mu.Lock()
	r.scrapes++
	n := r.scrapes % 4
	r.mu.Unlock()
	page := bytes.Replace(r.page, running, fmt.Appendf(nil, "%d.0", n), 1)
	return answer("text/plain; version=0.0.4; charset=utf-8", string(page))
}
