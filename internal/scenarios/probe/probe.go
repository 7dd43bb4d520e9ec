// Package probe is a filter for tests only: request headers tell it what to do.
//
//	x-probe-call: <clusters>   OnRequest waits for POST /probe of these clusters, with commas between; the
//	                           request then carries x-probe-reply: <status>, or "failed"; of several
//	                           "<n>=<status>" in the order of their arrival. A 403 refuses, a 425 asks again
//	x-probe-beside: <clusters> the same beside the request; it is the response that carries x-probe-beside
//	x-probe-deny: <hook>       the hook refuses with 403
//	x-probe-respond: <hook>    the hook responds with 203
//	x-probe-wait: <hook>       the hook waits for a call to "quick"
//	x-probe-aside: <hook>      the hook makes a call beside the request to "quick"
//	x-probe-fail: <hook>       the hook returns Fail
//	x-probe-panic: <hook>      the hook panics
//	x-probe-trap: <hook>       the hook ends in a fault that cannot be recovered
//	x-probe-replace: <text>    the body's model is replaced by the text
//	x-probe-response: <text>   the response gets x-probe-response: <text>
//	x-probe-screen: <w>,<o>    responses are screened in windows of w bytes that overlap
//	                           by o; with ",errors" those with an error status too
//	x-probe-mask: <text>       this text is masked in responses that are screened
//	x-probe-block: <text>      this text blocks them, with x-probe-filtered: 1 as filtered
//	x-probe-usage: <any>       the replica is asked for its usage
//	x-probe-say: <text>        the companion is told so, over and over until it replies with 200
//	x-probe-unit-call: <clusters>   each unit waits for POST /unit of these clusters with its text,
//	                           and goes on if all replies are a 200
//
// Hooks are requestHeaders, request, reply, beside (the reply to a call beside), responseHeaders, response and done.
package probe

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/inlet-proxy/inlet/shared/contract/conf"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/reading/llm"
)

// Factory makes the filter "probe". Its configuration:
//
//	needs: [request, prompt, usage]   what to read for it, nothing by default
//	timeout: 1s                       of its calls
//	converse: /path                   where the companion hears what x-probe-say says
var Factory = filter.Factory{
	Name:        "probe",
	FailureMode: filter.FailClosed,
	Metrics: func(m filter.Metrics) {
		m.Counter("probe_done_total", "complete", "refused")
		m.Counter("probe_heard_total", "reply")
	},
	New: func(o *conf.Object, d *filter.Deps) filter.Filter {
		f := &probe{timeout: time.Second, done: d.Metrics.Counter("probe_done_total", "complete", "refused")}
		o.Duration("timeout", &f.timeout, time.Millisecond, time.Minute)
		var path string
		if o.String("converse", &path); path != "" {
			f.said = &said{lock: d.Mutex(), heard: d.Metrics.Counter("probe_heard_total", "reply")}
			d.Companion.Converse(path, f.said.take, f.said.hear)
		}
		o.List("needs", func(v *conf.Value) {
			var word string
			if !v.String(&word) {
				return
			}
			switch word {
			case "request":
				f.needs |= filter.NeedRequest
			case "prompt":
				f.needs |= filter.NeedPrompt
			case "usage":
				f.needs |= filter.NeedUsage
			default:
				v.Errorf("%q is none of request, prompt, usage", word)
			}
		})
		return f
	},
}

type probe struct {
	needs   filter.Needs
	timeout time.Duration
	done    filter.Metric
	said    *said // nil: it does not converse
}

// said is what the companion is to be told.
type said struct {
	lock  filter.Mutex
	text  string
	heard filter.Metric
}

func (s *said) say(text string) {
	s.lock.Lock()
	defer s.lock.Unlock()
	s.text = text
}

func (s *said) take() []byte {
	s.lock.Lock()
	defer s.lock.Unlock()
	return []byte(s.text)
}

func (s *said) hear(r *filter.Reply) {
	s.heard.Record(1, filter.Values{replied(r)})
	if r.Status == 200 {
		s.say("")
	}
}

// replied is a reply in one word.
func replied(r *filter.Reply) string {
	if r.Err != nil {
		return "failed"
	}
	return strconv.Itoa(r.Status)
}

// orders are the probe's instructions from a request. They are kept because a filter
// that runs at the end cannot rely on the headers any more.
type orders struct {
	call, beside, deny, respond, wait, aside, fail, panic, trap, replace, response string
	screen, mask, block, filtered, unitCall, say, usage                            string

	open              int // calls that the request waits for
	replied, judgedBy string
}

func (p *probe) Needs() filter.Needs { return p.needs }

func (p *probe) OnRequestHeaders(x *filter.Exchange) filter.Verdict {
	o := &orders{}
	for name, to := range map[string]*string{
		"call": &o.call, "beside": &o.beside, "deny": &o.deny, "respond": &o.respond, "wait": &o.wait, "aside": &o.aside, "fail": &o.fail, "panic": &o.panic,
		"trap": &o.trap, "replace": &o.replace, "response": &o.response,
		"screen": &o.screen, "mask": &o.mask, "block": &o.block, "filtered": &o.filtered, "unit-call": &o.unitCall, "say": &o.say, "usage": &o.usage,
	} {
		*to, _ = x.RequestHeaders.Get("x-probe-" + name)
	}
	x.SetState(o)
	return p.at("requestHeaders", x)
}

func (p *probe) OnRequest(x *filter.Exchange) filter.Verdict {
	o := x.State().(*orders)
	if o.usage != "" {
		x.AskUsage()
	}
	if o.say != "" && p.said != nil {
		p.said.say(o.say)
	}
	if o.screen != "" {
		x.Screen(screening(o.screen))
	}
	if o.replace != "" && x.Request.HasModel {
		with, _ := json.Marshal(o.replace) // a string always marshals
		x.ReplaceInBody(x.Request.ModelSpan, with)
	}
	if v := p.at("request", x); v != filter.Next {
		return v
	}
	if o.call == "" {
		return p.goOn(o)
	}
	calls := p.calls(o.call, 0)
	o.open = len(calls)
	return filter.Wait(calls...)
}

// tagBeside is where the tags of calls beside begin.
const tagBeside = 100

// calls asks clusters.
func (p *probe) calls(clusters string, tag int) (calls []filter.Call) {
	for i, cluster := range strings.Split(clusters, ",") {
		calls = append(calls, filter.Call{
			Cluster: cluster, Path: "/probe", Headers: [][2]string{{"x-probe", "1"}}, Body: []byte("ask"), Timeout: p.timeout, Tag: tag + i,
		})
	}
	return calls
}

// goOn is the last verdict about the request.
func (p *probe) goOn(o *orders) filter.Verdict {
	if o.beside == "" {
		return filter.Next
	}
	return filter.Beside(p.calls(o.beside, tagBeside)...)
}

// screening reads "<window>,<overlap>", with ",errors" behind it or not.
func screening(how string) (s filter.Screening) {
	words := strings.Split(how, ",")
	s.Window, _ = strconv.Atoi(words[0])
	if len(words) > 1 {
		s.Overlap, _ = strconv.Atoi(words[1])
	}
	s.Errors = len(words) > 2
	return s
}

func (p *probe) OnReply(x *filter.Exchange, r *filter.Reply) filter.Verdict {
	if u := x.Unit(); u != nil {
		if r.Err != nil {
			return filter.Fail("no-reply")
		}
		if r.Status != 200 {
			return deny("The service refuses.", false)
		}
		return p.at("reply", x)
	}
	o := x.State().(*orders)
	if r.Tag >= tagBeside {
		return p.hearBeside(x, o, r)
	}
	if v := p.judge(r, o.call); v != filter.Next {
		return v
	}
	o.replied = tell(o.replied, r, o.call)
	x.SetRequestHeader("x-probe-reply", o.replied)
	if v := p.at("reply", x); v != filter.Next {
		return v
	}
	if o.open--; o.open > 0 {
		return filter.Next
	}
	return p.goOn(o)
}

func (p *probe) hearBeside(x *filter.Exchange, o *orders, r *filter.Reply) filter.Verdict {
	if v := p.judge(r, o.beside); v != filter.Next {
		return v
	}
	o.judgedBy = tell(o.judgedBy, r, o.beside)
	x.SetResponseHeader("x-probe-beside", o.judgedBy)
	return p.at("beside", x)
}

// judge does what a reply orders.
func (p *probe) judge(r *filter.Reply, clusters string) filter.Verdict {
	switch r.Status {
	case 403:
		return deny("A service refuses.", false)
	case 425:
		again := p.calls(clusters, r.Tag-r.Tag%tagBeside)[r.Tag%tagBeside]
		return filter.Wait(again)
	}
	return filter.Next
}

// tell adds a reply to those before.
func tell(before string, r *filter.Reply, clusters string) string {
	text := replied(r)
	if strings.Contains(clusters, ",") {
		text = strconv.Itoa(r.Tag%tagBeside) + "=" + text
	}
	if before == "" {
		return text
	}
	return before + "," + text
}

func (p *probe) OnResponseHeaders(x *filter.Exchange) filter.Verdict {
	if text := x.State().(*orders).response; text != "" {
		x.SetResponseHeader("x-probe-response", text)
	}
	return p.at("responseHeaders", x)
}

func (p *probe) OnResponse(x *filter.Exchange, u *filter.Unit) filter.Verdict {
	o := x.State().(*orders)
	var all []byte
	for i := range u.Pieces {
		text := u.Pieces[i].Text
		all = append(append(all, text...), '\n')
		if o.block != "" && bytes.Contains(text, []byte(o.block)) {
			return deny("The probe blocks.", o.filtered != "")
		}
		for at := 0; o.mask != ""; at += len(o.mask) {
			n := bytes.Index(text[at:], []byte(o.mask))
			if n < 0 {
				break
			}
			at += n
			u.Replace(i, at, at+len(o.mask), "[MASK]")
		}
	}
	if o.unitCall != "" && len(all) > 0 {
		var calls []filter.Call
		for _, cluster := range strings.Split(o.unitCall, ",") {
			calls = append(calls, filter.Call{Cluster: cluster, Path: "/unit", Body: all, Timeout: p.timeout})
		}
		return filter.Wait(calls...)
	}
	return p.at("response", x)
}

func (p *probe) OnDone(x *filter.Exchange, end filter.End) {
	p.done.Record(1, filter.Values{strconv.FormatBool(end.Complete), strconv.FormatBool(end.Refused)})
	p.at("done", x)
}

// at does what the request orders for a hook.
func (p *probe) at(hook string, x *filter.Exchange) filter.Verdict {
	o := x.State().(*orders)
	switch hook {
	case o.panic:
		panic("ordered")
	case o.trap:
		new(sync.Mutex).Unlock() // fatal: no recover sees it
	case o.fail:
		return filter.Fail("ordered")
	case o.deny:
		return deny("The probe refuses in "+hook+".", false)
	case o.respond:
		return filter.Respond(&filter.Answer{Status: 203, Headers: [][2]string{{"content-type", "text/plain"}}, Body: []byte("own")})
	case o.wait:
		o.wait = "" // once: OnReply may be the hook
		calls := p.calls("quick", 0)
		if hook == "beside" {
			calls[0].Tag = tagBeside
		}
		return filter.Wait(calls...)
	case o.aside:
		o.aside = ""
		return filter.Beside(p.calls("quick", tagBeside)...)
	}
	return filter.Next
}

func deny(message string, filtered bool) filter.Verdict {
	return filter.Deny(filter.Refusal{
		Refusal:  llm.Refusal{Status: 403, Type: "permission_error", Code: "probe_denied", Message: message},
		Filtered: filtered,
	})
}
