package quota

import (
	"strconv"
	"strings"

	"github.com/inlet-proxy/inlet/shared/state/account"
)

// appendAddress appends the address of a client as limits by "ip" know it. Of IPv6 that is its network (/64): a subscriber has
// one at least, and may use any address in it. What is no IPv6 address stays as it is.
func appendAddress(dst []byte, address string) []byte {
	address, _, _ = strings.Cut(address, "%") // a zone says how a client is reached, not who it is
	if v4, ok := strings.CutPrefix(address, "::ffff:"); ok && strings.IndexByte(v4, '.') > 0 {
		return account.AppendValue(dst, v4)
	}
	groups, ok := parseIPv6(address)
	if !ok {
		return account.AppendValue(dst, address)
	}
	for _, g := range groups[:4] {
		dst = strconv.AppendUint(dst, uint64(g), 16)
		dst = append(dst, ':')
	}
	return append(dst, ':')
}

// parseIPv6 returns the groups of an address, of which one that is written as IPv4 at the end is left out.
func parseIPv6(address string) (groups [8]uint16, ok bool) {
	before, after, short := strings.Cut(address, "::")
	n, ok := parseGroups(before, groups[:])
	if !ok || !short {
		return groups, ok && n == len(groups)
	}
	var rest [8]uint16
	m, ok := parseGroups(after, rest[:])
	if n+m >= len(groups) {
		return groups, false
	}
	copy(groups[len(groups)-m:], rest[:m])
	return groups, ok
}

// parseGroups reads groups with colons between them.
func parseGroups(text string, dst []uint16) (n int, ok bool) {
	for text != "" {
		group, rest, more := strings.Cut(text, ":")
		if strings.IndexByte(group, '.') > 0 && !more {
			return n + 2, n+2 <= len(dst) // takes the place of two
		}
		v, err := strconv.ParseUint(group, 16, 16)
		if err != nil || n == len(dst) || more && rest == "" {
			return n, false
		}
		dst[n], text = uint16(v), rest
		n++
	}
	return n, true
}
