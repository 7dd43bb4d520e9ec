package account

import (
	"bytes"
	"errors"
	"strconv"
	"time"
)

// Message is what a proxy says to the companion, by POST to /v1/quota. All numbers of an account are cumulative within its window and only
// grow, so that messages can be lost, repeated and overtaken: the largest counts.
type Message struct {
	Proxy      string  `json:"proxy"`
	Document   int64   `json:"document"`   // version of the keys that the proxy has
	Generation uint32  `json:"generation"` // of the allocator, as last heard; 0 if never
	Time       int64   `json:"t"`          // the proxy's clock, ms; comes back in the reply
	Accounts   []Entry `json:"accounts"`
}

// Entry is one account in a Message.
type Entry struct {
	Name     string `json:"k"`
	Period   string `json:"p"` // Window.Append
	Limit    int64  `json:"l"`
	Start    int64  `json:"s"`           // of the window, ms by the allocator's clock as far as known
	Window   int64  `json:"w"`           // names the window for this proxy: it stays when Start is corrected
	Seq      int64  `json:"q,omitempty"` // numbers messages that may be granted something
	Used     int64  `json:"u"`           // settled
	Back     int64  `json:"z,omitempty"` // of Used, given back again
	Said     int64  `json:"a,omitempty"` // of Used less Back, what this generation of the allocator has confirmed
	Released int64  `json:"r,omitempty"`
	Granted  int64  `json:"g,omitempty"` // as far as known
	Held     int64  `json:"h,omitempty"` // by open requests
	Need     int64  `json:"m,omitempty"` // more capacity with which one request can go on
	Want     int64  `json:"n,omitempty"` // more capacity with which all that wait can go on
	Rate     int64  `json:"x,omitempty"` // taken in the last 100 ms
}

// Reply is the allocator's response to a Message.
type Reply struct {
	Generation uint32  `json:"generation"`         // another one: the allocator has lost its memory, and wants to be told everything again
	Time       int64   `json:"t"`                  // of the Message
	Now        int64   `json:"now"`                // the allocator's clock, ms
	Proxies    int     `json:"proxies"`            // that are alive
	Settling   bool    `json:"settling,omitempty"` // it cannot grant yet: see Allocator
	Accounts   []Grant `json:"accounts"`
	// Document is the version of the keys, Keys the keys themselves (JSON), if the proxy has another version. A table passes over both.
	Document int64  `json:"document"`
	Keys     []byte `json:"-"`
}

// Grant is one account in a Reply, as the allocator has it for this proxy.
type Grant struct {
	Name     string `json:"k"`
	Start    int64  `json:"s"`
	End      int64  `json:"e"`           // 0: no window
	Window   int64  `json:"w"`           // the name of what this proxy has in it
	Seq      int64  `json:"q,omitempty"` // of the message
	Used     int64  `json:"u"`
	Back     int64  `json:"z,omitempty"`
	Released int64  `json:"r"`
	Granted  int64  `json:"g"`
	Batch    int64  `json:"b,omitempty"` // what the proxy may keep without need
	Free     int64  `json:"f"`           // what is left for all
	Total    int64  `json:"v"`           // what all have used
	Credit   int64  `json:"c,omitempty"` // on top of the limit, by an administrator
}

// mostEntries bounds the accounts in a message. The keys, which are only passed on, are bounded by who makes and who reads them.
const mostEntries = 4096

var errMessage = errors.New("account: not a message of the quota protocol")

// appendHead begins a message, up to the first of its accounts.
func appendHead(dst []byte, proxy string, document int64, generation uint32, now time.Time) []byte {
	dst = appendText(append(dst, `{"proxy":`...), proxy)
	dst = appendInt(dst, `,"document":`, document)
	dst = appendInt(dst, `,"generation":`, int64(generation))
	dst = appendInt(dst, `,"t":`, now.UnixMilli())
	return append(dst, `,"accounts":[`...)
}

// appendTail ends a message.
func appendTail(dst []byte) []byte { return append(dst, `]}`...) }

// appendEntry appends an account to a message. window is the text of its window.
func appendEntry(dst []byte, e *Entry, first bool) []byte {
	if !first {
		dst = append(dst, ',')
	}
	dst = appendText(append(dst, `{"k":`...), e.Name)
	dst = appendText(append(dst, `,"p":`...), e.Period)
	dst = appendInt(dst, `,"l":`, e.Limit)
	dst = appendInt(dst, `,"s":`, e.Start)
	dst = appendInt(dst, `,"w":`, e.Window)
	dst = appendPositive(dst, `,"q":`, e.Seq)
	dst = appendInt(dst, `,"u":`, e.Used)
	dst = appendPositive(dst, `,"z":`, e.Back)
	dst = appendPositive(dst, `,"a":`, e.Said)
	dst = appendPositive(dst, `,"r":`, e.Released)
	dst = appendPositive(dst, `,"g":`, e.Granted)
	dst = appendPositive(dst, `,"h":`, e.Held)
	dst = appendPositive(dst, `,"m":`, e.Need)
	dst = appendPositive(dst, `,"n":`, e.Want)
	dst = appendPositive(dst, `,"x":`, e.Rate)
	return append(dst, '}')
}

// Append appends the message as JSON.
func (m *Message) Append(dst []byte) []byte {
	dst = appendHead(dst, m.Proxy, m.Document, m.Generation, time.UnixMilli(m.Time))
	for i := range m.Accounts {
		dst = appendEntry(dst, &m.Accounts[i], i == 0)
	}
	return appendTail(dst)
}

// ParseMessage reads a Message. Numbers below 0 are 0, those above Most are Most, and accounts without a name, or with one that is too long, are an error.
func ParseMessage(b []byte) (Message, error) {
	var m Message
	var d decoder
	d.begin = func() { m.Accounts = append(m.Accounts, Entry{}) }
	d.set = func(inAccount bool, key string, v value) {
		if inAccount {
			m.Accounts[len(m.Accounts)-1].set(key, v)
			return
		}
		switch key {
		case "proxy":
			m.Proxy = v.str()
		case "document":
			m.Document = v.int()
		case "generation":
			m.Generation = uint32(v.int())
		case "t":
			m.Time = v.int()
		}
	}
	if !d.decode(b) || m.Proxy == "" || len(m.Proxy) > MaxName {
		return Message{}, errMessage
	}
	for i := range m.Accounts {
		if e := &m.Accounts[i]; e.Name == "" || len(e.Name) > MaxName || e.Period == "" {
			return Message{}, errMessage
		}
	}
	return m, nil
}

func (e *Entry) set(key string, v value) {
	switch key {
	case "k":
		e.Name = v.str()
	case "p":
		e.Period = v.str()
	case "l":
		e.Limit = clamp(v.int())
	case "s":
		e.Start = v.int()
	case "w":
		e.Window = v.int()
	case "q":
		e.Seq = max(v.int(), 0)
	case "u":
		e.Used = clampSum(v.int())
	case "z":
		e.Back = clampSum(v.int())
	case "a":
		e.Said = clampSum(v.int())
	case "r":
		e.Released = clampSum(v.int())
	case "g":
		e.Granted = clampSum(v.int())
	case "h":
		e.Held = clampSum(v.int())
	case "m":
		e.Need = clampSum(v.int())
	case "n":
		e.Want = clampSum(v.int())
	case "x":
		e.Rate = clamp(v.int())
	}
}

// clampSum brings a sum of amounts into 0 to twice Most.
func clampSum(n int64) int64 { return min(max(n, 0), 2*Most) }

// Append appends the reply as JSON.
func (r *Reply) Append(dst []byte) []byte {
	dst = appendInt(dst, `{"generation":`, int64(r.Generation))
	dst = appendInt(dst, `,"t":`, r.Time)
	dst = appendInt(dst, `,"now":`, r.Now)
	dst = appendInt(dst, `,"proxies":`, int64(r.Proxies))
	dst = appendInt(dst, `,"document":`, r.Document)
	if r.Settling {
		dst = append(dst, `,"settling":true`...)
	}
	if len(r.Keys) > 0 {
		dst = append(append(dst, `,"keys":`...), r.Keys...)
	}
	dst = append(dst, `,"accounts":[`...)
	for i := range r.Accounts {
		if i > 0 {
			dst = append(dst, ',')
		}
		g := &r.Accounts[i]
		dst = appendText(append(dst, `{"k":`...), g.Name)
		dst = appendInt(dst, `,"s":`, g.Start)
		dst = appendInt(dst, `,"e":`, g.End)
		dst = appendInt(dst, `,"w":`, g.Window)
		dst = appendPositive(dst, `,"q":`, g.Seq)
		dst = appendInt(dst, `,"u":`, g.Used)
		dst = appendPositive(dst, `,"z":`, g.Back)
		dst = appendInt(dst, `,"r":`, g.Released)
		dst = appendInt(dst, `,"g":`, g.Granted)
		dst = appendPositive(dst, `,"b":`, g.Batch)
		dst = appendInt(dst, `,"f":`, g.Free)
		dst = appendInt(dst, `,"v":`, g.Total)
		if g.Credit != 0 {
			dst = appendInt(dst, `,"c":`, g.Credit)
		}
		dst = append(dst, '}')
	}
	return appendTail(dst)
}

// ParseReply reads a Reply.
func ParseReply(b []byte) (Reply, error) {
	var r Reply
	var d decoder
	d.begin = func() { r.Accounts = append(r.Accounts, Grant{}) }
	d.set = func(inAccount bool, key string, v value) {
		if inAccount {
			r.Accounts[len(r.Accounts)-1].set(key, v)
			return
		}
		switch key {
		case "generation":
			r.Generation = uint32(v.int())
		case "t":
			r.Time = v.int()
		case "now":
			r.Now = v.int()
		case "proxies":
			r.Proxies = int(min(max(v.int(), 0), 1<<20))
		case "document":
			r.Document = v.int()
		case "settling":
			r.Settling = v.bool()
		case "keys":
			r.Keys = bytes.Clone(v.text)
		}
	}
	if !d.decode(b) || r.Now == 0 || !d.listed {
		return Reply{}, errMessage
	}
	return r, nil
}

func (g *Grant) set(key string, v value) {
	switch key {
	case "k":
		g.Name = v.str()
	case "s":
		g.Start = v.int()
	case "e":
		g.End = v.int()
	case "w":
		g.Window = v.int()
	case "q":
		g.Seq = max(v.int(), 0)
	case "u":
		g.Used = clampSum(v.int())
	case "z":
		g.Back = clampSum(v.int())
	case "r":
		g.Released = clampSum(v.int())
	case "g":
		g.Granted = clampSum(v.int())
	case "b":
		g.Batch = clamp(v.int())
	case "f":
		g.Free = clamp(v.int())
	case "v":
		g.Total = clampSum(v.int())
	case "c":
		g.Credit = min(max(v.int(), -Most), Most)
	}
}

func appendInt(dst []byte, name string, n int64) []byte {
	return strconv.AppendInt(append(dst, name...), n, 10)
}

func appendPositive(dst []byte, name string, n int64) []byte {
	if n <= 0 {
		return dst
	}
	return appendInt(dst, name, n)
}

// appendText appends a JSON string. A byte that is not printable ASCII, which no name has, becomes a question mark.
func appendText(dst []byte, s string) []byte {
	dst = append(dst, '"')
	for i := range len(s) {
		switch c := s[i]; {
		case c < ' ' || c >= 0x7f:
			dst = append(dst, '?')
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		default:
			dst = append(dst, c)
		}
	}
	return append(dst, '"')
}
