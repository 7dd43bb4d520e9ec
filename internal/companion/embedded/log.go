package embedded

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"

	"github.com/inlet-proxy/inlet/shared/contract/filter"
)

// logger writes to the proxy's log, in lines such as "companion: readiness changed pool=llama endpoint=10.0.0.1:80 ready=true".
func logger(write func(filter.Level, string)) *slog.Logger {
	h := &handler{mu: new(sync.Mutex), line: new(bytes.Buffer), write: write}
	h.text = slog.NewTextHandler(h.line, &slog.HandlerOptions{Level: slog.LevelDebug, ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		if len(groups) == 0 && (a.Key == slog.TimeKey || a.Key == slog.LevelKey || a.Key == slog.MessageKey) {
			return slog.Attr{}
		}
		return a
	}})
	return slog.New(h)
}

// handler has the attributes written by slog's own.
type handler struct {
	mu    *sync.Mutex // held while line is in use
	line  *bytes.Buffer
	text  slog.Handler
	write func(filter.Level, string)
}

// Enabled implements slog.Handler. The proxy drops what is below its own level.
func (h *handler) Enabled(context.Context, slog.Level) bool { return true }

// Handle implements slog.Handler.
func (h *handler) Handle(ctx context.Context, r slog.Record) error {
	h.mu.Lock()
	h.line.Reset()
	err := h.text.Handle(ctx, r)
	attributes := strings.TrimSpace(h.line.String())
	h.mu.Unlock()
	h.write(level(r.Level), strings.TrimSpace("companion: "+r.Message+" "+attributes))
	return err
}

// WithAttrs implements slog.Handler.
func (h *handler) WithAttrs(a []slog.Attr) slog.Handler {
	return &handler{h.mu, h.line, h.text.WithAttrs(a), h.write}
}

// WithGroup implements slog.Handler.
func (h *handler) WithGroup(name string) slog.Handler {
	return &handler{h.mu, h.line, h.text.WithGroup(name), h.write}
}

func level(l slog.Level) filter.Level {
	switch {
	case l >= slog.LevelError:
		return filter.Error
	case l >= slog.LevelWarn:
		return filter.Warn
	case l >= slog.LevelInfo:
		return filter.Info
	}
	return filter.Debug
}
