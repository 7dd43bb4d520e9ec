package account

import "github.com/cespare/xxhash/v2"

// KeyOf returns the key of the account with that name. Two names with one key are two accounts all the same: the second one shares an
// overflow account. So nobody can get at another's account by choosing a name.
func KeyOf(name []byte) Key {
	var d xxhash.Digest
	d.ResetWithSeed(keySeed)
	_, _ = d.Write(name)
	return Key{Hi: xxhash.Sum64(name), Lo: d.Sum64()}
}

const keySeed = 0x696e6c6574

// AppendValue appends a value of a dimension to a name, such as an application or the content of a header. What could be taken for another part of
// the name, or is not printable ASCII, is written as %XX, so that two values never give one name.
func AppendValue(dst []byte, value string) []byte {
	const hex = "0123456789ABCDEF"
	for i := range len(value) {
		switch c := value[i]; {
		case c <= ' ' || c >= 0x7f || c == '%' || c == '/' || c == '=' || c == ',' || c == '"' || c == '\\':
			dst = append(dst, '%', hex[c>>4], hex[c&15])
		default:
			dst = append(dst, c)
		}
	}
	return dst
}
