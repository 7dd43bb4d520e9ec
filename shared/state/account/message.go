package account

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
	Window   string `json:"p"` // Window.String
	Limit    int64  `json:"l"`
	Start    int64  `json:"s"`           // of the window, ms by the allocator's clock as far as known
	Used     int64  `json:"u"`           // settled
	Back     int64  `json:"z,omitempty"` // of Used, given back again
	Said     int64  `json:"a,omitempty"` // of Used less Back, what this generation of the allocator has confirmed
	Released int64  `json:"r,omitempty"`
	Granted  int64  `json:"g,omitempty"` // as far as known
	Need     int64  `json:"m"`           // capacity with which one request can go on: used, held and its own amount
	Want     int64  `json:"n"`           // capacity with which all that wait can go on
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
}

// Grant is one account in a Reply, as the allocator has it for this proxy.
type Grant struct {
	Name     string `json:"k"`
	Start    int64  `json:"s"`
	End      int64  `json:"e"` // 0: no window
	Used     int64  `json:"u"` // less what was given back
	Released int64  `json:"r"`
	Granted  int64  `json:"g"`
	Batch    int64  `json:"b,omitempty"` // what the proxy may keep without need
	Free     int64  `json:"f"`           // what is left for all
	Credit   int64  `json:"c,omitempty"` // on top of the limit, by an administrator
}
