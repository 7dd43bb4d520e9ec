package quota

import (
	"sync/atomic"
	"syscall"

	"github.com/inlet-proxy/inlet/internal/companion/quota/journal"
)

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
