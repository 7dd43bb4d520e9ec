package conf

import (
	"fmt"
	"strconv"
	"strings"
)

// Check validates a string. It returns "" if the string is valid; otherwise it returns what is wrong, in words that
// follow the quoted value, such as "is not a header name".
type Check func(string) string

// NotEmpty refuses the empty string.
func NotEmpty(s string) string {
	if s == "" {
		return "is empty"
	}
	return ""
}

// HeaderName accepts a field name as defined in RFC 9110 section 5.1 (a token), in lower case as in HTTP/2 and Envoy.
// Pseudo-headers such as ":path" are not field names.
func HeaderName(s string) string {
	if s == "" {
		return "is not a header name"
	}
	for i := range len(s) {
		if !isTokenByte(s[i]) {
			return "is not a header name"
		}
	}
	if lower := strings.ToLower(s); lower != s {
		return fmt.Sprintf("is not a header name in lower case (did you mean %q?)", lower)
	}
	return ""
}

// isTokenByte reports whether c is a tchar of RFC 9110 section 5.6.2.
func isTokenByte(c byte) bool {
	switch {
	case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		return true
	}
	return strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}

// PathPrefix wants a string that can begin the path of a request.
func PathPrefix(s string) string {
	if !strings.HasPrefix(s, "/") {
		return `does not start with "/"`
	}
	return ""
}

// Authority wants a host, with or without a port, as RFC 9110 section 7.2 has it in a Host header. It looks up nothing.
func Authority(s string) string {
	const wrong = "is not a host, or host:port"
	host, port := s, ""
	if i := strings.LastIndexByte(s, ':'); i >= 0 && !strings.HasSuffix(s, "]") {
		host, port = s[:i], s[i+1:]
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return wrong
		}
	}
	address, v6 := strings.CutPrefix(host, "[")
	if v6 {
		host, v6 = strings.CutSuffix(address, "]")
		if !v6 || !strings.Contains(host, ":") {
			return wrong
		}
	}
	if host == "" || len(host) > 253 {
		return wrong
	}
	for i := range len(host) {
		switch c := host[i]; {
		case 'a' <= c && c <= 'f', 'A' <= c && c <= 'F', '0' <= c && c <= '9', c == '.':
		case v6 && c == ':':
		case !v6 && ('g' <= c && c <= 'z' || 'G' <= c && c <= 'Z' || c == '-' || c == '_'):
		default:
			return wrong
		}
	}
	return ""
}

// Suggest returns ` (did you mean "x"?)` with the word of among that word is most likely a slip of, or "" if none is near.
// The first of equally near words wins.
func Suggest(word string, among []string) string {
	const longest = 64 // nobody mistypes longer words, and the distance costs the product of the lengths
	if len(word) > longest {
		return ""
	}
	best, nearest := "", longest
	for _, candidate := range among {
		if len(candidate) > longest || candidate == word {
			continue
		}
		d := distance(plain(word), plain(candidate))
		if d < nearest && d <= max(len(word), len(candidate))/3 {
			best, nearest = candidate, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf(" (did you mean %q?)", best)
}

// plain drops what people mix up between spelling styles: fail_open, fail-open and FailOpen are the same words.
func plain(s string) string {
	return strings.NewReplacer("_", "", "-", "").Replace(strings.ToLower(s))
}

// distance counts the insertions, deletions, substitutions and swaps of neighbours that lead from a to b
// (optimal string alignment).
func distance(a, b string) int {
	before, above, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		before, above, row = above, row, before
		row[0] = i
		for j := 1; j <= len(b); j++ {
			change := 1
			if a[i-1] == b[j-1] {
				change = 0
			}
			row[j] = min(above[j]+1, row[j-1]+1, above[j-1]+change)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
	}
	return row[len(b)]
}
