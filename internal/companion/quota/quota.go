// Package quota is the companion's side of shared quotas: it divides limits among proxies, and says who may call.
//
// # Counters
//
// A proxy says at /v1/quota what it has used of each account, and what it needs (package account has the messages and the arithmetic). The
// reply grants it a part of the limit. The counters are in a Store: in this process with a journal, or in Redis, which several companions can
// share.
//
// # Directory
//
// Developers, apps, keys and products are in a file, or are managed by the admin API and saved in the store. A proxy gets the whole directory
// with a reply whenever the version that it has is another one.
package quota

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"
	_ "time/tzdata" // windows have time zones, and the companion's image may not

	"github.com/inlet-proxy/inlet/shared/state/account"
)

// Path is where proxies send their messages.
const Path = "/v1/quota"

// Bounds of a message.
const (
	maxMessage     = 4 << 20
	messageTimeout = 5 * time.Second
)

// Options are the settings of a Service. Store is required.
type Options struct {
	Store Store
	// File is the file of the directory; "" for none. Managed is a directory that the admin API changes, saved in the store. With neither there is
	// no directory, and proxies get none.
	File    string
	Managed bool
	// Read reads the directory in place of the file; File is then its name for messages. An error by Unavailable says nothing about it.
	Read func() ([]byte, error)
	Log  *slog.Logger
	// Look is how often the file, or the store's directory, is looked at for changes; 300 ms.
	Look time.Duration
	Now  func() time.Time // for the expiry of keys
}

// Service answers proxies and the admin API. It is an http.Handler for POST /v1/quota.
type Service struct {
	opts    Options
	current atomic.Pointer[published]

	editing sync.Mutex // of the directory
	fault   string     // why the directory could not be read, "" if it could

	stats serviceStats
}

// published is the directory that proxies get.
type published struct {
	directory *Directory
	loaded    bool   // it is what the file or the store has
	saved     []byte // as the store has it
	document  []byte
	version   int64
}

type serviceStats struct {
	messages, refused, failed atomic.Uint64
	entries, grants           atomic.Uint64
	dry                       atomic.Uint64
	documents                 atomic.Uint64
	directoryErrors           atomic.Uint64
}

// Stats is what the service counts.
type Stats struct {
	Messages  uint64 // of proxies, that got a reply
	Refused   uint64 // messages that cannot be understood
	Failed    uint64 // messages without a reply since the store failed
	Entries   uint64 // accounts in messages
	Grants    uint64 // times that a proxy got more of an account
	Dry       uint64 // times that a proxy needed more and there was none
	Documents uint64 // directories that were sent
	Keys      int
	// DirectoryErrors is how often the directory could not be read.
	DirectoryErrors uint64
	Store           StoreStats
}

// New returns a service. It reads the directory once, which must succeed unless the store does not respond.
func New(ctx context.Context, o Options) (*Service, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Look <= 0 {
		o.Look = 300 * time.Millisecond
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	s := &Service{opts: o}
	err := s.reload(ctx)
	if errors.As(err, new(unavailable)) {
		// Proxies keep the directory that they have until the store works.
		s.note(err)
		s.current.Store(&published{directory: new(Directory)})
		err = nil
	}
	if err != nil {
		return nil, err
	}
	return s, nil
}

// Run follows changes of the directory that others make, until ctx ends.
func (s *Service) Run(ctx context.Context) {
	ticker := time.NewTicker(s.opts.Look)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		s.note(s.reload(ctx))
	}
}

// note logs that the directory can or cannot be read, once.
func (s *Service) note(err error) {
	text := ""
	if err != nil {
		text = err.Error()
		s.stats.directoryErrors.Add(1)
	}
	if text == s.fault {
		return
	}
	if s.fault = text; text != "" {
		s.opts.Log.Error("the directory of keys cannot be read; the last good one stays", "reason", text)
	} else {
		s.opts.Log.Info("the directory of keys is read again")
	}
}

// reload reads the directory and publishes it if it changed.
func (s *Service) reload(ctx context.Context) error {
	s.editing.Lock()
	defer s.editing.Unlock()
	var text []byte
	var err error
	switch {
	case s.opts.Read != nil:
		text, err = s.opts.Read()
	case s.opts.File != "":
		text, err = os.ReadFile(s.opts.File)
	case s.opts.Managed:
		text, err = s.opts.Store.Directory(ctx)
	}
	if err != nil {
		return err
	}
	if p := s.current.Load(); p != nil && p.loaded && bytes.Equal(p.saved, text) {
		return nil
	}
	d := new(Directory)
	if text != nil {
		if d, err = ParseDirectory(text); err != nil {
			if s.opts.File != "" {
				return fmt.Errorf("%s:\n%w", s.opts.File, err)
			}
			return fmt.Errorf("the saved directory: %w", err)
		}
	}
	s.publish(d, text)
	return nil
}

func (s *Service) publish(d *Directory, saved []byte) {
	p := &published{directory: d, loaded: true, saved: saved}
	if s.opts.File == "" && !s.opts.Managed {
		s.current.Store(p)
		return
	}
	p.document, p.version = d.encode()
	s.current.Store(p)
	s.opts.Log.Info("the directory of keys changed", "version", p.version, "developers", len(d.Developers), "apps", len(d.Apps),
		"keys", len(d.Keys), "products", len(d.Products))
}

// Directory returns the current directory.
func (s *Service) Directory() *Directory { return s.current.Load().directory }

// ServeHTTP answers a message of a proxy.
func (s *Service) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if req.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		http.Error(w, "method not allowed, use POST", http.StatusMethodNotAllowed)
		return
	}
	m, status, err := s.readMessage(w, req)
	if err != nil {
		s.stats.refused.Add(1)
		http.Error(w, err.Error(), status)
		return
	}
	reply, err := s.Answer(req.Context(), m)
	if err != nil {
		s.stats.failed.Add(1)
		w.Header().Set("Retry-After", "1")
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(reply) // the proxy is gone if it fails
}

func (s *Service) readMessage(w http.ResponseWriter, req *http.Request) (*account.Message, int, error) {
	// A body that trickles in must not last. In tests there may be no connection.
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(messageTimeout))
	body, err := io.ReadAll(http.MaxBytesReader(w, req.Body, maxMessage))
	if tooLong := new(http.MaxBytesError); errors.As(err, &tooLong) {
		return nil, http.StatusRequestEntityTooLarge, fmt.Errorf("the message exceeds %d bytes", maxMessage)
	}
	if err != nil {
		return nil, http.StatusBadRequest, err
	}
	m, err := account.ParseMessage(body)
	return &m, http.StatusBadRequest, err
}

// Answer returns the response to a message. A proxy that says a negative version has its directory from elsewhere, and gets none.
func (s *Service) Answer(ctx context.Context, m *account.Message) ([]byte, error) {
	reply, err := s.opts.Store.Exchange(ctx, m)
	if err != nil {
		return nil, err
	}
	s.count(m, &reply)
	p := s.current.Load()
	reply.Document = p.version
	if m.Document != p.version && m.Document >= 0 && p.version != 0 {
		reply.Keys = p.document
		s.stats.documents.Add(1)
	}
	return reply.Append(nil), nil
}

func (s *Service) count(m *account.Message, reply *account.Reply) {
	s.stats.messages.Add(1)
	s.stats.entries.Add(uint64(len(m.Accounts)))
	i := 0
	for _, g := range reply.Accounts {
		for i < len(m.Accounts) && m.Accounts[i].Name != g.Name {
			i++ // it has no answer
		}
		if i == len(m.Accounts) {
			return
		}
		e := &m.Accounts[i]
		if g.Granted > e.Granted && (e.Want > 0 || e.Rate > 0) {
			s.stats.grants.Add(1)
		}
		if g.Granted-g.Released < g.Used-g.Back+e.Held+e.Need {
			s.stats.dry.Add(1)
		}
	}
}

// Stats returns the present counts.
func (s *Service) Stats() Stats {
	d := s.Directory()
	return Stats{
		Messages: s.stats.messages.Load(), Refused: s.stats.refused.Load(), Failed: s.stats.failed.Load(),
		Entries: s.stats.entries.Load(), Grants: s.stats.grants.Load(), Dry: s.stats.dry.Load(), Documents: s.stats.documents.Load(),
		Keys: len(d.Keys), DirectoryErrors: s.stats.directoryErrors.Load(), Store: s.opts.Store.Stats(),
	}
}
