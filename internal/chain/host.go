package chain

import (
	"strings"
	"time"

	"github.com/inlet-proxy/inlet/shared/contract/filter"
)

// Host is one HTTP exchange as an adapter offers it to the chain. All calls
// come from within the callbacks of that exchange.
type Host interface {
	// RequestHeaders and ResponseHeaders read the header maps. Pseudo headers
	// (":method", ":path", ":status") are there too.
	RequestHeaders() filter.Headers
	ResponseHeaders() filter.Headers

	// ApplyRequest applies header and body edits before the request goes on,
	// and has the route selected again. Body edits do not overlap, are sorted and
	// lie within the body that was fed to the stream; a content-length edit is
	// among the header edits already.
	ApplyRequest(headers []filter.HeaderEdit, body []filter.BodyEdit) error
	// ApplyResponse applies header edits before the answer goes on.
	ApplyResponse(headers []filter.HeaderEdit)

	// Reply answers the client instead of the replica.
	Reply(r *LocalReply)

	// Call starts a call; its answer must come as Stream.Reply with the same number, later, unless
	// an error is returned here.
	Call(number int, c *filter.Call) error
	// ResumeRequest lets a request go on that was held for a call.
	ResumeRequest()

	// ResumeResponse lets a response go on that was held (see Stream.HoldsResponse) or stopped (see
	// Stream.StopsResponse): what the host has of it, and then body. If its end has come, it ends then.
	ResumeResponse(body []byte)
	// EndResponse says that no byte of the replica's goes on after those that are handed
	// over now: the client's response is to end, and the replica to be told to stop. A
	// host that cannot end it cleanly gives the client time (EndGrace) to close the
	// connection itself, and then cuts it.
	EndResponse()

	// Subset appends the addresses of the subset hint to dst, and reports whether
	// there is one: the dynamic metadata filter.SubsetKey in filter.SubsetNamespace, a list of
	// ip:port, or one string of them with commas between. Anything else that stands
	// there is a hint that nobody fits.
	Subset(dst []string) (addresses []string, given bool)
	// Metadata returns a value of the dynamic metadata if it is a string, else "".
	Metadata(namespace, key string) string
	// Client returns the client's ip:port, "" if Envoy does not tell it.
	Client() string
	// Mark says that the chain of a document (see Marked) has decided about the
	// request. Called before ApplyRequest.
	Mark(document uint64)
	// Marked reports whether a chain of the same document, which stands before this
	// one in Envoy's filter chain, has said so of this request.
	Marked(document uint64) bool
	// RequestNow are the request's headers as they stand at the end of the exchange,
	// when Envoy has put the URL of a redirect that it follows into them. Nil if
	// they cannot be read any more.
	RequestNow() filter.Headers
	// Stamp is a number that Envoy gives to what it has got from a client, that a request
	// keeps when its redirect is followed, and that no client can choose. False if
	// Envoy does not tell it.
	Stamp() (uint64, bool)

	// Served returns the ip:port of the replica that Envoy turned to last, "" if
	// unknown. Asked at the response headers.
	Served() string
	// Details returns Envoy's response code details, "" if it does not tell them.
	// Asked at the response headers and at the end.
	Details() string
	// Attempts returns how often Envoy has sent the request to a replica, 0 if it does
	// not tell. Asked at the response headers.
	Attempts() int
	// Cluster returns the name of the cluster that the request went to, "" if Envoy
	// does not tell.
	Cluster() string
	// Explain shows the one-line reason to the access log.
	Explain(why []byte)
}

// RedirectDetails are the response code details of a new stream that Envoy made to follow a redirect. The same request then comes again at once.
const RedirectDetails = "internal_redirect"

// AppendAddresses appends the addresses of a string with commas between them.
func AppendAddresses(dst []string, list string) []string {
	for address := range strings.SplitSeq(list, ",") {
		if address = strings.TrimSpace(address); address != "" {
			dst = append(dst, address)
		}
	}
	return dst
}

// EndGrace is how long a client has to close a stream that Inlet has ended.
const EndGrace = 500 * time.Millisecond

// LocalReply is an answer that Inlet gives itself.
type LocalReply struct {
	Status  int
	Headers [][2]string
	Body    []byte
	Detail  string // short reason for Envoy's %RESPONSE_CODE_DETAILS%
}

// Action is what the adapter does after a callback.
type Action uint8

const (
	// Continue lets what was held and what comes go on.
	Continue Action = iota
	// Hold keeps headers and body: more is needed, or a call is in progress.
	Hold
	// Replied: a local reply was sent; nothing of the request goes on.
	Replied
)
