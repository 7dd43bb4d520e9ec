package sim

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"strconv"
)

// Transcriptions of OpenAI's audio API. The transcript describes what arrived: the model and the sizes, so that a test
// sees whether a proxy forwards a form completely.

const (
	// audioBytesPerSecond is for 16 kHz audio with 16 bits, whatever the file is.
	audioBytesPerSecond = 32000
	// audioTokensPerSecond: Whisper's encoder makes 1,500 positions of 30 seconds.
	audioTokensPerSecond = 50
)

// parseForm reads a multipart form. The client gets an *apiError.
func (q *request) parseForm(contentType string, body []byte) error {
	q.clear()
	kind, params, err := mime.ParseMediaType(contentType)
	if err != nil || kind != "multipart/form-data" || params["boundary"] == "" {
		return badRequest("Field required: file (the body is not multipart/form-data)")
	}
	form := multipart.NewReader(bytes.NewReader(body), params["boundary"])
	fields, size, name := 0, -1, ""
	for {
		part, err := form.NextPart()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return badRequest("The form is malformed: %v", err)
		}
		value, err := io.ReadAll(part)
		if err != nil {
			return badRequest("The form is malformed: %v", err)
		}
		fields++
		switch part.FormName() {
		case "model":
			q.model = string(value)
		case "stream":
			if string(value) == "true" {
				return badRequest("A stream of a transcription is not simulated.")
			}
		case "file":
			size, name = len(value), part.FileName()
		}
	}
	if size < 0 {
		return badRequest("Field required: file")
	}
	q.audioSeconds = max(1, (size+audioBytesPerSecond-1)/audioBytesPerSecond)
	q.prompt = fmt.Appendf(q.prompt, "model %s, file %s of %d bytes, %d fields in %d bytes", q.model, name, size, fields, len(body))
	q.lastMsg = q.prompt
	q.maxTokens = len(q.prompt)
	return nil
}

// appendTranscript appends the response in the form of response_format json.
func (x *exchange) appendTranscript(out []byte) []byte {
	out = append(out, `{"text":"`...)
	out = x.appendText(out)
	out = append(out, '"')
	if !x.fault.NoUsage {
		out = append(out, `,"usage":{"type":"duration","seconds":`...)
		out = strconv.AppendInt(out, int64(x.request.audioSeconds), 10)
		out = append(out, '}')
	}
	return append(out, '}')
}
