package sim

import (
	"cmp"
	"hash/fnv"
	"net/http"
	"slices"
	"strconv"

	"github.com/tidwall/gjson"
)

// Rerank (as in Jina and Cohere) and score, as vLLM serves them. A score is a number from 0 to 1 that depends only on the
// two texts: it is the same on every replica.

// pair is one comparison: a document by its place in the request, and its score.
type pair struct {
	index int
	text  string
	score float64
}

// readRerank reads query and documents; documents are strings or objects with a text.
func (q *request) readRerank(query, documents gjson.Result) error {
	if query.Type != gjson.String {
		return badRequest("Input should be a valid string: query")
	}
	if !documents.IsArray() {
		return badRequest("Field required: documents")
	}
	q.compare([]string{query.Str}, texts(documents))
	return nil
}

// readScore reads text_1 and text_2, each a string or a list: one with many, or equally many of both.
func (q *request) readScore(first, second gjson.Result) error {
	if !second.Exists() {
		return badRequest("Field required: text_2")
	}
	a, b := texts(first), texts(second)
	if len(a) == 0 || len(b) == 0 {
		return badRequest("At least one text_pair element must be given")
	}
	if len(a) != 1 && len(a) != len(b) {
		return badRequest("Input lengths must be either 1:1, 1:N or N:N")
	}
	q.compare(a, b)
	return nil
}

// texts returns the texts of a string, of a list of strings, or of a list of objects with a text.
func texts(v gjson.Result) (list []string) {
	if v.Type == gjson.String {
		return []string{v.Str}
	}
	v.ForEach(func(_, item gjson.Result) bool {
		if text := item.Get("text"); item.IsObject() {
			item = text
		}
		list = append(list, item.String())
		return true
	})
	return list
}

func (q *request) compare(first, second []string) {
	for i, text := range second {
		with := first[0]
		if len(first) > 1 {
			with = first[i]
		}
		q.prompt = append(append(q.prompt, with...), text...)
		h := fnv.New64a()
		h.Write([]byte(with))
		h.Write([]byte{0})
		h.Write([]byte(text))
		q.pairs = append(q.pairs, pair{i, text, float64(h.Sum64()>>11) / (1 << 53)})
	}
}

// rerank responds with the documents, the best first.
func (x *exchange) rerank() {
	q := &x.request
	slices.SortStableFunc(q.pairs, func(a, b pair) int { return cmp.Compare(b.score, a.score) })
	pairs := q.pairs
	if q.topN > 0 && q.topN < len(pairs) {
		pairs = pairs[:q.topN]
	}
	out := x.appendID(append(x.out[:0], `{"id":`...))
	out = append(out, `,"model":`...)
	out = gjson.AppendJSONString(out, q.model)
	if !x.fault.NoUsage {
		out = append(out, `,"usage":{"prompt_tokens":`...)
		out = strconv.AppendInt(out, int64(x.job.promptTokens), 10)
		out = append(out, `,"total_tokens":`...)
		out = strconv.AppendInt(out, int64(x.job.promptTokens), 10)
		out = append(out, '}')
	}
	out = append(out, `,"results":[`...)
	for i, p := range pairs {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(out, `{"index":`...)
		out = strconv.AppendInt(out, int64(p.index), 10)
		out = append(out, `,"document":{"text":`...)
		out = gjson.AppendJSONString(out, p.text)
		out = append(out, `,"multi_modal":null},"relevance_score":`...)
		out = strconv.AppendFloat(out, p.score, 'g', -1, 64)
		out = append(out, '}')
	}
	x.out = append(out, "]}"...)
	x.answer(http.StatusOK, "application/json", x.out)
}

// score responds with one score per pair, in their order.
func (x *exchange) score() {
	q := &x.request
	out := x.appendID(append(x.out[:0], `{"id":`...))
	out = append(out, `,"object":"list","created":`...)
	out = appendNow(out)
	out = append(out, `,"model":`...)
	out = gjson.AppendJSONString(out, q.model)
	out = append(out, `,"data":[`...)
	for i, p := range q.pairs {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(out, `{"index":`...)
		out = strconv.AppendInt(out, int64(p.index), 10)
		out = append(out, `,"object":"score","score":`...)
		out = strconv.AppendFloat(out, p.score, 'g', -1, 64)
		out = append(out, '}')
	}
	out = append(out, ']')
	if !x.fault.NoUsage {
		out = append(out, `,"usage":`...)
		out = append(appendTokens(out, &x.job), '}')
	}
	x.out = append(out, '}')
	x.answer(http.StatusOK, "application/json", x.out)
}
