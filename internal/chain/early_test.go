package chain_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/inlet-proxy/inlet/internal/chain"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
)

// uploaded plays a body in pieces and its end, until a reply. It returns what came of
// each, "H", "C" or "R", and how many bytes had gone on before the end was said.
func uploaded(s *chain.Stream, h *host, pieces []string) (actions string, passed int) {
	s.Begin(h)
	if s.RequestHeaders(false) != chain.Hold {
		return "", 0
	}
	arrived := 0
	for _, piece := range pieces {
		arrived += len(piece)
		act := s.RequestBody([]byte(piece), false)
		actions += letters[act]
		switch act {
		case chain.Continue:
			passed = arrived
		case chain.Replied:
			return actions, passed
		}
	}
	return actions + letters[s.RequestEnd()], passed
}

var letters = map[chain.Action]string{chain.Continue: "C", chain.Hold: "H", chain.Replied: "R"}

// needsModel makes a rig whose filter asks for the model only, and renames it.
func needsModel(t *testing.T, options string) *rig {
	r := withOptions(t, options, filter.NeedModel)
	r.a.request = func(x *filter.Exchange) filter.Verdict {
		if x.Request.ModelIsString {
			x.ReplaceInBody(x.Request.ModelSpan, []byte(`"other"`))
		}
		return filter.Next
	}
	return r
}

func TestRequestsGoOnWhenTheModelWasRead(t *testing.T) {
	for _, c := range []struct {
		name   string
		pieces []string
		open   string // what comes of the pieces and the end, without a content-length
		sized  string // ... and with it
		code   string
	}{
		{"at once", []string{`{"model":"m"`, `,"messages":[]`, `}`}, "CCCC", "CCCC", ""},
		{"later", []string{`{"messages":[],"mo`, `del":"m`, `"`, `}`}, "HHCCC", "HHCCC", ""},
		{"one piece", []string{`{"model":"m"}`}, "CC", "CC", ""},
		{"no string", []string{`{"model":1`, `,"messages":[]`, `}`}, "HHHC", "HHCC", ""},
		{"none", []string{`{"n":1`, `,"messages":[]}`}, "HHC", "HCC", ""},
		{"a second model", []string{`{"model":"m"`, `,"mod\u0065l":`, `"n"`, `}`}, "CR", "CR", "duplicate_key"},
		{"a fault", []string{`{"model":"m"`, `,"a":1`, `]`, `}`}, "CCR", "CCR", "invalid_json"},
		{"no end", []string{`{"model":"m"`, `,"a":1`}, "CCR", "CR", "invalid_json"},
		{"no end of a number", []string{`{"model":"m"`, `,"a":`, `-`}, "CCCR", "CCR", "invalid_json"},
		{"more behind the end", []string{`{"model":"m"`, `}`, ` `, `{`}, "CCCR", "CCCR", "invalid_json"},
		{"too deep", []string{`{"model":"m"`, `,"a":` + strings.Repeat("[", 200), `1`}, "CR", "CR", "limit_exceeded"},
		{"too large", []string{`{"model":"m","a":"`, strings.Repeat("a", 90), `"}`}, "CR", "", "request_too_large"},
	} {
		for _, sized := range []bool{false, true} {
			t.Run(fmt.Sprint(c.name, " sized=", sized), func(t *testing.T) {
				r, h, want := needsModel(t, "limits: {body: 100}"), post(), c.open
				if c.name == "too deep" {
					r = needsModel(t, "")
				}
				all := strings.Join(c.pieces, "")
				if sized {
					h, want = post("content-length", fmt.Sprint(len(all))), c.sized
				}
				s := r.chain.NewStream()
				actions, passed := uploaded(s, h, c.pieces)
				require.Equal(t, want, actions)
				var end filter.End
				r.a.done = func(_ *filter.Exchange, e filter.End) { end = e }
				if c.code != "" {
					require.Contains(t, string(h.reply.Body), c.code)
					require.Equal(t, chain.Replied, s.RequestBody([]byte("x"), true), "nothing goes on any more")
					if sized {
						require.Less(t, passed, len(all), "a server has it all when it has as many bytes as were announced")
					}
				}
				s.Done()
				if want != "" { // else no hook has run
					require.Equal(t, c.code != "", end.Refused && end.Status >= 400)
				}
			})
		}
	}
}

// Bytes that the adapter cannot read do not go on, wherever the request is by then.
func TestWhatIsLostIsRefused(t *testing.T) {
	for _, pieces := range [][]string{{}, {`{"messages":[]`}, {`{"model":"m"`}, {`{"model":"m"}`}} {
		r, h := needsModel(t, ""), post()
		s := r.chain.NewStream()
		s.Begin(h)
		s.RequestHeaders(false)
		for _, piece := range pieces {
			s.RequestBody([]byte(piece), false)
		}
		require.Equal(t, chain.Replied, s.RequestLost(), pieces)
		require.Equal(t, 500, h.reply.Status)
		require.Equal(t, chain.Replied, s.RequestBody([]byte(`}`), true), "nothing goes on any more")
		s.Done()
	}
}

func TestLengthIsCorrectedBeforeTheBodyIsThere(t *testing.T) {
	r, h := needsModel(t, ""), post("content-length", "43")
	actions, passed := uploaded(r.chain.NewStream(), h, []string{`{"model":"m","a":`, `"bbbbbbbbbbbbbbbbbbbbbbb`, `"}`})
	require.Equal(t, "CCCC", actions)
	require.Equal(t, 43, passed)
	require.Equal(t, []string{"content-length=47", `body[9:12]="other"`}, h.log)
}

func TestFieldsAreWaitedFor(t *testing.T) {
	for _, c := range []struct {
		pieces []string
		want   string
	}{
		{[]string{`{"model":"m","a":1`, `,"user":"u`, `ser"`, `,"b":2`, `}`}, "HHHCCC"},
		{[]string{`{"user":"u","model":`, `"m"`, `,"b":2`, `}`}, "HCCCC"},
		{[]string{`{"model":"m","user":{"a":`, `1}`, `,"b":2}`}, "HHCC"},
		{[]string{`{"model":"m","user"`, `:`, `12`, `3`, `,"b":`, `1}`}, "HHHHCCC"},
		{[]string{`{"model":"m","a":1`, `,"b":2`, `}`}, "HHHC"},
		{[]string{`{"model":"m","user":1,"a":1`, `,"us\u0065r":2`, `}`}, "CR"},
	} {
		for _, needs := range []filter.Needs{filter.NeedModel, 0} { // who reads a field need not say more
			r := withNeeds(t, needs, "user")
			actions, _ := uploaded(r.chain.NewStream(), post(), c.pieces)
			require.Equal(t, c.want, actions, c.pieces)
		}
	}
}

func TestFormsGoOnWhenTheModelWasRead(t *testing.T) {
	const part = "--b\r\nContent-Disposition: form-data; name="
	for _, c := range []struct {
		pieces []string
		want   string
	}{
		{[]string{part + "model\r\n\r\nm\r\n" + part + "file; filename=f\r\n\r\n", "RIFF", "\r\n--b--\r\n"}, "CCCC"},
		{[]string{part + "model\r\n\r\nm", "\r\n--b", "\r\n"}, "HCCR"},
		{[]string{part + "model\r\n\r\nm\r\n" + part + "file; filename=f\r\n\r\n", "RIFF", "\r\n" + part + "model\r\n\r\nn"}, "CCR"},
		{[]string{part + "file; filename=f\r\n\r\n", "RIFF\r\n" + part + "model\r\n\r\nm\r\n--b--\r\n"}, "HCC"},
	} {
		r := needsModel(t, "")
		h := post("content-type", "multipart/form-data; boundary=b")
		h.request[":path"] = "/v1/audio/transcriptions"
		actions, _ := uploaded(r.chain.NewStream(), h, c.pieces)
		require.Equal(t, c.want, actions, "%q", c.pieces)
	}
}

func TestWhoNeedsMoreHasItAll(t *testing.T) {
	for _, needs := range []filter.Needs{filter.NeedRequest, filter.NeedPrompt, filter.NeedPrefix} {
		r := withNeeds(t, filter.NeedModel|needs)
		s := r.chain.NewStream()
		s.Begin(post("content-length", "26"))
		s.RequestHeaders(false)
		require.Equal(t, chain.Hold, s.RequestBody([]byte(`{"model":"m","messages":[]`), false))
		require.Equal(t, chain.Continue, s.RequestBody([]byte(`}`), true))
		s.Done()
	}
}

func TestEncodedBodiesAreWaitedFor(t *testing.T) {
	r := needsModel(t, "")
	wire := encode(t, "gzip", body)
	actions, _ := uploaded(r.chain.NewStream(), post("content-encoding", "gzip", "content-length", fmt.Sprint(len(wire))), []string{wire[:9], wire[9:]})
	require.Equal(t, "HHC", actions)
}

// A filter that waits for a call decides with the whole body.
func TestWaitingHoldsTheBody(t *testing.T) {
	r := needsModel(t, "")
	r.a.request = func(*filter.Exchange) filter.Verdict { return filter.Wait(filter.Call{Cluster: "c", Timeout: 1}) }
	r.a.reply = func(*filter.Exchange, *filter.Reply) filter.Verdict { return filter.Next }
	for _, faulty := range []bool{false, true} {
		h := post()
		s := r.chain.NewStream()
		s.Begin(h)
		s.RequestHeaders(false)
		require.Equal(t, chain.Hold, s.RequestBody([]byte(`{"model":"m",`), false))
		require.Len(t, h.calls, 1)
		require.Equal(t, chain.Hold, s.RequestBody([]byte(`"a":1`), false))
		s.Reply(h.last, &filter.Reply{Status: 200})
		require.Zero(t, h.resumed)
		if faulty {
			require.Equal(t, chain.Replied, s.RequestBody([]byte(`]`), false))
		} else {
			require.Equal(t, chain.Hold, s.RequestBody([]byte(`,"b":2`), false))
			require.Equal(t, chain.Continue, s.RequestBody([]byte(`}`), true))
		}
		s.Done()
	}
}

// However a body is cut: what is refused has not gone on whole, and what is
// accepted is accepted either way.
func TestEarlyAndLateAgree(t *testing.T) {
	early, late := withNeeds(t, filter.NeedModel), withNeeds(t, filter.NeedRequest)
	piece := rapid.SampledFrom([]string{`{`, `}`, `"model":"m"`, `"model":1`, `,`, `"a":[1,{"model":"n"}]`, `"stream":true`, ` `, `]`, `"x":"`, `"`})
	rapid.Check(t, func(t *rapid.T) {
		body := strings.Join(rapid.SliceOfN(piece, 1, 7).Draw(t, "body"), "")
		var pieces []string
		for rest := body; rest != ""; {
			n := rapid.IntRange(1, len(rest)).Draw(t, "n")
			pieces, rest = append(pieces, rest[:n]), rest[n:]
		}
		h, other := post("content-length", fmt.Sprint(len(body))), post()
		s, o := early.chain.NewStream(), late.chain.NewStream()
		actions, passed := uploaded(s, h, pieces)
		want, _ := uploaded(o, other, pieces)
		require.Equal(t, strings.HasSuffix(want, "R"), strings.HasSuffix(actions, "R"), body)
		if strings.HasSuffix(actions, "R") {
			require.Less(t, passed, len(body))
			require.Equal(t, other.reply.Status, h.reply.Status)
		}
		s.Done()
		o.Done()
	})
}
