package discover

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	// settle is how long a file must be unchanged before it is read, so that a file written in place is not read half-way.
	settle = 20 * time.Millisecond
	// recheck is how often the files are read without any event: for directories that appear later, links into other directories, and file
	// systems without events.
	recheck = 2 * time.Second
)

// File is the source of one pool.
type File struct {
	Pool string
	Path string // relative to the working directory, as for Envoy
}

// Watch reads the files, and again whenever they change, in place, by rename over them, or by the swapped directory link of a Kubernetes
// volume. It calls loaded with each valid content, and failed with each error: then the last good content stays. Both are
// called from one goroutine. Watch returns when ctx ends, or at once if the system cannot watch files.
func Watch(ctx context.Context, files []File, log *slog.Logger, loaded func(pool string, a *Assignment), failed func(pool string, err error)) error {
	events, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch files: %w", err)
	}
	defer events.Close()

	w := &watcher{log: log, loaded: loaded, failed: failed, events: events}
	for _, f := range files {
		w.files = append(w.files, &watched{File: f})
	}
	w.readAll()

	tick := time.NewTicker(recheck)
	defer tick.Stop()
	quiet := time.NewTimer(0)
	defer quiet.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case e := <-events.Events:
			if w.concerns(e.Name) {
				quiet.Reset(settle)
			}
		case err := <-events.Errors:
			log.Warn("missed file events; the files are read again soon", "error", err) // an overflow, say
		case <-quiet.C:
			w.readAll()
		case <-tick.C:
			w.readAll()
		}
	}
}

type watcher struct {
	log    *slog.Logger
	loaded func(string, *Assignment)
	failed func(string, error)
	events *fsnotify.Watcher
	files  []*watched
}

type watched struct {
	File
	content []byte // as last read, valid or not
	reason  string // why it cannot be used, "" if it can
	read    bool
}

// instead says what holds after a failure, for the log.
func instead(known bool) string {
	if known {
		return "keeping the last good list"
	}
	return "there is no list yet"
}

// concerns reports whether an event in a watched directory may be about one of the files. A Kubernetes volume swaps the link "..data"
// that the files lead through.
func (w *watcher) concerns(name string) bool {
	base := filepath.Base(name)
	if strings.HasPrefix(base, "..") {
		return true
	}
	for _, f := range w.files {
		if filepath.Base(f.Path) == base {
			return true
		}
	}
	return false
}

func (w *watcher) readAll() {
	for _, f := range w.files {
		// Directories are watched and not files: a rename over the file would leave the watch on the old one. Adding a directory again
		// changes nothing; adding one that is missing fails, and the read says so.
		_ = w.events.Add(filepath.Dir(f.Path))
		w.read(f)
	}
}

func (w *watcher) read(f *watched) {
	content, err := os.ReadFile(f.Path)
	if err == nil && f.read && f.reason == "" && bytes.Equal(content, f.content) {
		return
	}
	var a *Assignment
	if err == nil {
		a, err = Parse(content)
	}
	if err != nil {
		if err.Error() != f.reason { // logged once, not at every read
			f.reason = err.Error()
			w.log.Error("cannot use the endpoint file; "+instead(f.read), "pool", f.Pool, "path", f.Path, "reason", err)
			w.failed(f.Pool, err)
		}
		return
	}
	f.content, f.reason, f.read = content, "", true
	if a.Unknown != "" {
		w.log.Warn("endpoint file has unknown fields", "pool", f.Pool, "path", f.Path, "reason", a.Unknown)
	}
	if a.Skipped != nil {
		w.log.Error("skipped unusable endpoints", "pool", f.Pool, "path", f.Path, "reason", a.Skipped)
		w.failed(f.Pool, a.Skipped)
	}
	w.log.Info("endpoints changed", "pool", f.Pool, "path", f.Path, "cluster", a.Cluster, "count", len(a.Endpoints))
	w.loaded(f.Pool, a)
}
