package feed

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/shared/contract/filter"
)

// talker is a world with two conversations.
type talker struct {
	*world
	talks *Talks
	say   string
	heard []filter.Reply
	other int // how often the other one was asked
}

func newTalker() *talker {
	w := &talker{world: newWorld()}
	link := &filter.Link{}
	link.Converse("/v1/a", func() []byte { return []byte(w.say) }, func(r *filter.Reply) { w.heard = append(w.heard, *r) })
	link.Converse("/v1/b", func() []byte { w.other++; return nil }, func(*filter.Reply) { panic("never") })
	w.talks = NewTalks("companion", link.Conversations(), w.Deps, w.Call)
	return w
}

func (w *talker) pass(d time.Duration) {
	for end := w.now.Add(d); w.now.Before(end); {
		w.now = w.now.Add(Period)
		w.talks.Tick()
	}
}

func TestAConversation(t *testing.T) {
	w := newTalker()
	w.pass(time.Second)
	require.Empty(t, w.reports, "there is nothing to say")
	w.say = `{"n":1}`
	w.pass(Period)
	require.Len(t, w.reports, 1)
	r := w.reports[0].Request
	require.Equal(t, [][2]string{{":method", "POST"}, {":path", "/v1/a"}, {":authority", "c"}, {"content-type", "application/json"}}, r.Headers("c"))
	require.Equal(t, `{"n":1}`, string(r.Body))
	require.Equal(t, 800*time.Millisecond, r.Timeout)
	w.pass(time.Second)
	require.Len(t, w.reports, 1, "one call at a time")
	require.EqualValues(t, 101, w.other, "and no conversation waits for another")

	w.taken(&filter.Reply{Status: 200, Body: []byte("{}")})
	require.Len(t, w.heard, 1)
	require.Equal(t, "{}", string(w.heard[0].Body))
	w.pass(Period)
	require.Len(t, w.reports, 1, "the next one follows at the next tick")
	require.Empty(t, w.logs)
}

func TestFailuresOfAConversation(t *testing.T) {
	for name, fail := range map[string]*filter.Reply{
		"reset": {Err: errors.New("reset")}, "500": {Status: 500}, "404": {Status: 404}, "304": {Status: 304},
	} {
		t.Run(name, func(t *testing.T) {
			w := newTalker()
			w.say = "x"
			w.pass(Period)
			var pauses []time.Duration
			for i := range 8 {
				w.taken(fail)
				require.Len(t, w.heard, i+1)
				require.Equal(t, *fail, w.heard[i])
				failed := w.now
				for len(w.reports) == 0 {
					w.pass(Period)
				}
				pauses = append(pauses, w.now.Sub(failed))
			}
			ms := time.Millisecond
			require.Equal(t, []time.Duration{60 * ms, 100 * ms, 200 * ms, 260 * ms, 260 * ms, 260 * ms, 260 * ms, 260 * ms}, pauses)
			require.Len(t, w.logs, 1)
			require.Contains(t, w.logs[0], "/v1/a")
			w.taken(ok)
			require.Contains(t, w.logs[1], "succeed again")
			w.pass(Period)
			require.Len(t, w.reports, 1, "no pause any more")
		})
	}
}

func TestAConversationThatCannotBeSent(t *testing.T) {
	w := newTalker()
	w.say, w.refuse = "x", errors.New("no such cluster")
	w.pass(Period)
	require.ErrorIs(t, w.heard[0].Err, w.refuse)
	w.refuse = nil
	w.pass(firstPause)
	require.Len(t, w.reports, 1)
}

// The host may have gone silent: what is open then does not block forever, and a late reply is not heard.
func TestAConversationWithoutAReply(t *testing.T) {
	w := newTalker()
	w.say = "x"
	w.pass(2 * talkTimeout)
	require.Len(t, w.reports, 1)
	w.pass(2 * Period)
	require.Len(t, w.reports, 2)
	w.taken(ok)
	require.Empty(t, w.heard)
	w.taken(ok)
	require.Len(t, w.heard, 1)
}

func TestConversationsRest(t *testing.T) {
	w := newTalker()
	w.say = "x"
	w.pass(Period)
	w.talks.Rest()
	w.taken(ok)
	require.Empty(t, w.heard)
	w.pass(lastPause - Period)
	require.Empty(t, w.reports)
	w.pass(Period)
	require.Len(t, w.reports, 1)
}
