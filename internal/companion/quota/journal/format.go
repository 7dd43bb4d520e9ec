package journal

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strconv"
	"strings"
)

// Version is the version of the files' format. A companion refuses files of a newer one.
const Version = 1

// A file is a line that says what it is, and records: length, checksum (both 32 bits, little endian) and payload. A snapshot ends with a
// record of length 0, without which it is not complete.
const (
	magic     = "inlet-quota-journal "
	headBytes = 8
	maxRecord = 64 << 20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func header() string { return magic + strconv.Itoa(Version) + "\n" }

// appendRecord appends a record to dst.
func appendRecord(dst, payload []byte) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(payload)))
	dst = binary.LittleEndian.AppendUint32(dst, checksum(payload))
	return append(dst, payload...)
}

// checksum covers the length too: a run of zeros, which is what some file systems leave behind after a crash, is not a valid record.
func checksum(payload []byte) uint32 {
	var length [4]byte
	binary.LittleEndian.PutUint32(length[:], uint32(len(payload)))
	return crc32.Update(crc32.Checksum(length[:], castagnoli), castagnoli, payload)
}

// errTorn: the file ends within a record, or with one whose checksum is wrong.
var errTorn = errors.New("the last record is incomplete")

// readFile passes each record to f. The error is errTorn, or what f or the file returned. complete: the last record is the end of a snapshot.
// valid is the number of bytes up to the last good record, and rest what is behind it.
func readFile(r io.Reader, f func(payload []byte) error) (complete bool, valid, rest int64, err error) {
	counted := &counter{r: r}
	b := bufio.NewReaderSize(counted, 1<<16)
	total := func() int64 {
		_, _ = io.Copy(io.Discard, b) // only to say how much was cut
		return counted.n
	}
	line, err := b.ReadString('\n')
	switch {
	case errors.Is(err, io.EOF) && (strings.HasPrefix(header(), line) || strings.HasPrefix(line, magic) || strings.Trim(line, "\x00") == ""):
		return false, 0, total(), errTorn // the process ended while it began the file, or the machine, which may leave zeros
	case err != nil && !errors.Is(err, io.EOF):
		return false, 0, 0, err
	}
	if err := checkHeader(line); err != nil {
		return false, 0, 0, err
	}
	valid = int64(len(line))
	var head [headBytes]byte
	var payload []byte
	for {
		if _, err := io.ReadFull(b, head[:]); err != nil {
			if errors.Is(err, io.EOF) {
				return complete, valid, 0, nil
			}
			return complete, valid, total() - valid, errTorn
		}
		length := binary.LittleEndian.Uint32(head[:])
		if length > maxRecord {
			return complete, valid, total() - valid, errTorn
		}
		if uint32(cap(payload)) < length {
			payload = make([]byte, length)
		}
		payload = payload[:length]
		if _, err := io.ReadFull(b, payload); err != nil || checksum(payload) != binary.LittleEndian.Uint32(head[4:]) {
			return complete, valid, total() - valid, errTorn
		}
		if complete = length == 0; !complete {
			if err := f(payload); err != nil {
				return false, valid, 0, err
			}
		}
		valid += headBytes + int64(length)
	}
}

func checkHeader(line string) error {
	text, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), magic)
	version, err := strconv.Atoi(text)
	if !ok || err != nil {
		return errors.New("is not a file of a journal")
	}
	if version != Version {
		return fmt.Errorf("has format %d, and this companion reads format %d: start the companion that wrote it, or give this one an empty folder", version, Version)
	}
	return nil
}

// counter counts the bytes that were read.
type counter struct {
	r io.Reader
	n int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}
