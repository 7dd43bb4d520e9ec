package sim

import (
	"encoding/base64"
	"encoding/binary"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"

	"github.com/tidwall/gjson"
)

// embeddingDimensions is the length of a vector if the request does not set it. Real ones are longer; nothing here reads
// them.
const (
	embeddingDimensions = 8
	maxDimensions       = 4096
)

// embeddings responds to /v1/embeddings: one vector of length 1 per input, the same for the same text on every replica.
func (x *exchange) embeddings() {
	q := &x.request
	out := x.appendID(append(x.out[:0], `{"id":`...))
	out = append(out, `,"object":"list","created":`...)
	out = strconv.AppendInt(out, time.Now().Unix(), 10)
	out = append(out, `,"model":`...)
	out = gjson.AppendJSONString(out, q.model)
	out = append(out, `,"data":[`...)
	start := 0
	for i, end := range q.inputEnds {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(out, `{"index":`...)
		out = strconv.AppendInt(out, int64(i), 10)
		out = append(out, `,"object":"embedding","embedding":`...)
		out = appendVector(out, vector(q.prompt[start:end], q.dimensions), q.base64)
		out = append(out, '}')
		start = end
	}
	out = append(out, ']')
	if !x.fault.NoUsage {
		out = append(out, `,"usage":{"prompt_tokens":`...)
		out = strconv.AppendInt(out, int64(x.job.promptTokens), 10)
		out = append(out, `,"total_tokens":`...)
		out = strconv.AppendInt(out, int64(x.job.promptTokens), 10)
		out = append(out, `,"completion_tokens":0,"prompt_tokens_details":null}`...)
	}
	x.out = append(out, '}')
	x.answer(http.StatusOK, "application/json", x.out)
}

func vector(text []byte, dimensions int) []float32 {
	h := fnv.New64a()
	h.Write(text)
	random := rand.New(rand.NewPCG(h.Sum64(), 0))
	v := make([]float32, dimensions)
	squares := 0.0
	for i := range v {
		c := random.NormFloat64()
		v[i] = float32(c)
		squares += c * c
	}
	for i := range v {
		v[i] /= float32(math.Sqrt(squares))
	}
	return v
}

// appendVector appends a vector as numbers, or as the little-endian float32 in base64 that OpenAI's Python client
// requests.
func appendVector(dst []byte, v []float32, asBase64 bool) []byte {
	if asBase64 {
		raw := make([]byte, 0, 4*len(v))
		for _, c := range v {
			raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(c))
		}
		dst = append(dst, '"')
		dst = base64.StdEncoding.AppendEncode(dst, raw)
		return append(dst, '"')
	}
	dst = append(dst, '[')
	for i, c := range v {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = strconv.AppendFloat(dst, float64(c), 'g', -1, 32)
	}
	return append(dst, ']')
}
