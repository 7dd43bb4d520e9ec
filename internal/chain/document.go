package chain

import (
	"encoding/binary"

	"github.com/inlet-proxy/inlet/shared/contract/conf"
)

// checkText refuses a document that is a protobuf message. A wasm plugin whose
// configuration is anything but a string gets the message itself (Struct,
// TypedStruct), of which a parser of YAML could only say where it gives up.
func checkText(doc []byte) error {
	if !isMessage(doc) {
		return nil
	}
	return conf.Errors{{Line: 1, Column: 1, Message: "the configuration is a protobuf message, such as a google.protobuf.Struct, not text: " +
		"give it as a StringValue (\"@type\": type.googleapis.com/google.protobuf.StringValue, value: the document)"}}
}

// isMessage reports whether doc has the form of a protobuf message with strings or
// messages in it, and bytes that are in no text.
func isMessage(doc []byte) bool {
	return hasControls(doc) && hasFields(doc)
}

func hasControls(doc []byte) bool {
	for _, c := range doc {
		if c < ' ' && c != '\t' && c != '\n' && c != '\r' {
			return true
		}
	}
	return false
}

// hasFields reports whether doc is one field after the other, to its end
// (https://protobuf.dev/programming-guides/encoding/).
func hasFields(doc []byte) bool {
	for len(doc) > 0 {
		tag, n := binary.Uvarint(doc)
		if n <= 0 || tag>>3 == 0 {
			return false
		}
		doc = doc[n:]
		size := 0
		switch tag & 7 {
		case 0: // varint
			_, size = binary.Uvarint(doc)
			if size <= 0 {
				return false
			}
		case 1:
			size = 8
		case 2: // its length, then bytes
			length, n := binary.Uvarint(doc)
			if n <= 0 || length > uint64(len(doc)) {
				return false
			}
			size = n + int(length)
		case 5:
			size = 4
		default:
			return false
		}
		if size > len(doc) {
			return false
		}
		doc = doc[size:]
	}
	return true
}
