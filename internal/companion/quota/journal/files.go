package journal

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
)

// FS is the part of a file system that the journal uses, so that tests can make it fail. All names are paths.
type FS interface {
	Create(name string) (File, error) // empty, for writing
	Open(name string) (io.ReadCloser, error)
	Rename(from, to string) error
	Remove(name string) error
	List(dir string) ([]string, error) // base names
	SyncDir(dir string) error          // makes names of files durable
}

// File is a file that is written.
type File interface {
	io.WriteCloser
	Sync() error
	Truncate(size int64) error
}

// Disk is the FS of the operating system.
type Disk struct{}

// Create implements FS.
func (Disk) Create(name string) (File, error) {
	return os.OpenFile(name, os.O_CREATE|os.O_TRUNC|os.O_WRONLY|os.O_APPEND, 0o600)
}

// Open implements FS.
func (Disk) Open(name string) (io.ReadCloser, error) { return os.Open(name) }

// Rename implements FS.
func (Disk) Rename(from, to string) error { return os.Rename(from, to) }

// Remove implements FS.
func (Disk) Remove(name string) error { return os.Remove(name) }

// List implements FS.
func (Disk) List(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return names, err
}

// SyncDir implements FS.
func (Disk) SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// lock makes this process the only one with a journal in dir. The lock ends with the process, however that ends.
func lock(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	switch {
	case errors.Is(err, syscall.EWOULDBLOCK):
		holder, _ := io.ReadAll(io.LimitReader(f, 32)) // only for the message
		_ = f.Close()
		return nil, fmt.Errorf("%s is used by another companion (process %s): two would count apart; give each its own folder, or share counters through Redis", dir, holder)
	case err != nil:
		_ = f.Close()
		return nil, fmt.Errorf("cannot lock %s: %w; the journal needs a file system with locks", f.Name(), err)
	}
	// Who holds it is for the message above. On a full disk it cannot be said, and that does no harm.
	if f.Truncate(0) == nil {
		fmt.Fprintf(f, "%d", os.Getpid())
	}
	return f, nil
}
