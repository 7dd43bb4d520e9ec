package endpoint

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// SnapshotPath is where the companion serves the snapshot; SnapshotPath + ".json" is the same for people.
const SnapshotPath = "/v1/snapshot"

// Path returns the request path by which a proxy polls the companion, a GET and long poll:
//
//	/v1/snapshot?since=<source>-<version>&worker=<id>&wait=<milliseconds>
//
// have is what the proxy has, nil if nothing; worker is its unique id. The companion responds at once if it has another version (or is
// another process than before), otherwise when there is one, at the latest after wait:
//
//	200  the snapshot in the wire form, whole or as a delta to what the proxy has, Content-Type as [ContentType]
//	304  nothing changed within wait
//	503  the companion has no snapshot yet (it has just started)
//
// In each case but the first, and if there is no response at all, the proxy keeps what it has. A proxy that cannot apply a delta polls again
// without since: then the response is a complete snapshot.
func Path(have *Snapshot, worker string, wait time.Duration) string {
	b := []byte(SnapshotPath)
	sep := byte('?')
	if have != nil {
		b = append(b, "?since="...)
		b = append(b, have.ID()...)
		sep = '&'
	}
	b = append(b, sep)
	b = append(b, "worker="...)
	b = append(escape(b, worker), "&wait="...)
	return string(strconv.AppendInt(b, wait.Milliseconds(), 10))
}

// ID identifies this state of this companion: source and version in decimal, joined by "-".
func (s *Snapshot) ID() string {
	return strconv.FormatUint(s.Source, 10) + "-" + strconv.FormatUint(s.Version, 10)
}

// ParseID parses what ID returned.
func ParseID(id string) (source, version uint64, err error) {
	first, second, ok := strings.Cut(id, "-")
	if ok {
		source, err = strconv.ParseUint(first, 10, 64)
	}
	if ok && err == nil {
		version, err = strconv.ParseUint(second, 10, 64)
	}
	if !ok || err != nil {
		return 0, 0, fmt.Errorf("%q is not <source>-<version>", id)
	}
	return source, version, nil
}

// escape appends s as a query value (RFC 3986: all but the unreserved characters percent-encoded).
func escape(b []byte, s string) []byte {
	const hex = "0123456789ABCDEF"
	for i := range len(s) {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', strings.IndexByte("-._~", c) >= 0:
			b = append(b, c)
		default:
			b = append(b, '%', hex[c>>4], hex[c&15])
		}
	}
	return b
}
