package wasm

import (
	"encoding/binary"
	"unsafe"
)

// mapKind is the ABI's number of a header map.
type mapKind uint32

const (
	requestHeaders  mapKind = 0
	responseHeaders mapKind = 2
)

// marshalPairs writes a header map as the ABI has it: count, all lengths, then
// all strings, each ended by a zero byte.
func marshalPairs(pairs [][2]string) []byte {
	b := binary.LittleEndian.AppendUint32(nil, uint32(len(pairs)))
	for _, p := range pairs {
		b = binary.LittleEndian.AppendUint32(b, uint32(len(p[0])))
		b = binary.LittleEndian.AppendUint32(b, uint32(len(p[1])))
	}
	for _, p := range pairs {
		b = append(append(b, p[0]...), 0)
		b = append(append(b, p[1]...), 0)
	}
	return b
}

// appendPairs appends to list what marshalPairs writes. The strings alias wire,
// which must not change any more.
func appendPairs(list [][2]string, wire []byte) [][2]string {
	if len(wire) < 4 {
		return list
	}
	end := 4 + 8*binary.LittleEndian.Uint32(wire)
	lengths, text := wire[4:end], wire[end:]
	rest := unsafe.String(unsafe.SliceData(text), len(text))
	for ; len(lengths) > 0; lengths = lengths[8:] {
		name, value := binary.LittleEndian.Uint32(lengths), binary.LittleEndian.Uint32(lengths[4:])
		list = append(list, [2]string{rest[:name], rest[name+1 : name+1+value]})
		rest = rest[name+value+2:]
	}
	return list
}
