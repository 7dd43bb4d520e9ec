package quota

import (
	"sync/atomic"
	"syscall"

	"github.com/inlet-proxy/inlet/internal/companion/quota/journal"
)

// slowDisk is a disk on which a sync that begins while it is slow ends when the channel is closed.
type slowDisk struct {
	journal.Disk
	slow   atomic.Bool
	synced chan struct{}
}

func (s *slowDisk) Create(name string) (journal.File, error) {
	file, err := s.Disk.Create(name)
	return &slowFile{file, s}, err
}

type slowFile struct {
	journal.File
	disk *slowDisk
}

func (s *slowFile) Sync() error {
	if s.disk.slow.Load() {
		<-s.disk.synced
	}
	return s.File.Sync()
}

// quickDisk is a disk that is not waited for: enough where no machine dies.
type quickDisk struct{ journal.Disk }

func (quickDisk) SyncDir(string) error { return nil }

func (d quickDisk) Create(name string) (journal.File, error) {
	file, err := d.Disk.Create(name)
	return quickFile{file}, err
}

type quickFile struct{ journal.File }

func (quickFile) Sync() error { return nil }

// fullDisk is a disk that may be full.
type fullDisk struct {
	journal.Disk
	full atomic.Bool
}

func (f *fullDisk) Create(name string) (journal.File, error) {
	file, err := f.Disk.Create(name)
	return &fullFile{file, f}, err
}

type fullFile struct {
	journal.File
	disk *fullDisk
}

func (f *fullFile) Write(p []byte) (int, error) {
	if f.disk.full.Load() {
		return 0, syscall.ENOSPC
	}
	return f.File.Write(p)
}
