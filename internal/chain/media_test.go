package chain

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestMediaTypes(t *testing.T) {
	for _, v := range []string{
		"application/json", "Application/JSON", "APPLICATION/JSON;charset=utf-8", " application/json ; x=y", "application/json;", "application/vnd.x+json", "Application/Vnd.X+JSON; v=1",
		"application/problem+json",
	} {
		require.True(t, isJSON(v), v)
		require.False(t, isEventStream(v), v)
	}
	for _, v := range []string{"text/event-stream", "Text/Event-Stream", "text/event-stream; charset=utf-8", "TEXT/EVENT-STREAM;charset=utf-8", " text/event-stream\t;x"} {
		require.True(t, isEventStream(v), v)
		require.False(t, isJSON(v), v)
	}
	for _, v := range []string{
		"", ";", "application", "application/jsonl", "application/json-seq", "application/jsonx", "application/x-ndjson", "application/+json", "text/event-streams", "text/plain;application/json",
		"multipart/form-data; boundary=application/json", "xapplication/json", "image/svg+json", "application/json text/event-stream",
	} {
		require.False(t, isJSON(v), v)
		require.False(t, isEventStream(v), v)
	}
	require.Zero(t, testing.AllocsPerRun(100, func() { _ = isJSON("Application/Vnd.X+JSON; v=1") || isEventStream("Text/Event-Stream") }))
}
