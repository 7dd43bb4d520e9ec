package sim

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"strconv"
	"unicode/utf8"
)

// readSay reads what the client wants the response to say, so that people can see what a gateway makes of it.
func (x *exchange) readSay() error {
	x.text, x.said, x.piece = x.text[:0], false, 0
	h := x.r.Header
	if text := h.Get("X-Modelsim-Say"); text != "" {
		var err error
		if x.text, err = base64.StdEncoding.AppendDecode(x.text, []byte(text)); err != nil || !utf8.Valid(x.text) {
			x.text = x.text[:0]
			return badRequest("x-modelsim-say is not the base64 of UTF-8 text")
		}
	} else if h.Get("X-Modelsim-Echo") == "prompt" {
		x.text = append(x.text, x.request.lastUser...)
	}
	x.said = len(x.text) > 0
	if piece := h.Get("X-Modelsim-Piece"); piece != "" {
		var err error
		if x.piece, err = strconv.Atoi(piece); err != nil || x.piece < 1 {
			return badRequest("x-modelsim-piece is not a number of characters")
		}
	}
	return nil
}

// tellPrompt sets x-modelsim-prompt-sha256 to the SHA-256 of the text of all messages that arrived.
func (x *exchange) tellPrompt() {
	sum := sha256.Sum256(x.request.text)
	x.w.Header()["X-Modelsim-Prompt-Sha256"] = []string{hex.EncodeToString(sum[:])}
}
