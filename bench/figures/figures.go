// Package figures writes the results of a benchmark: one JSON object per line into a
// file, and the same as a Markdown table.
package figures

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
)

// Cell is one figure, and one line of the file.
type Cell struct {
	Bench  string  `json:"bench"`
	Case   string  `json:"case"`
	Mode   string  `json:"mode"`
	Metric string  `json:"metric"`
	Value  float64 `json:"value"`
	Unit   string  `json:"unit"`
}

// File is the file of one benchmark.
type File struct {
	bench   string
	machine string // before anything ran
	file    *os.File
	cells   []Cell
	err     error
}

// Create makes the file, usually bench/out/<bench>.jsonl, and its folders. Its name without the extension is the
// benchmark's name.
func Create(path string) (*File, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	file, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	return &File{bench: strings.TrimSuffix(filepath.Base(path), filepath.Ext(path)), machine: Machine(), file: file}, nil
}

// Line writes one figure. Errors are kept for Close.
func (f *File) Line(benchCase, mode, metric string, value float64, unit string) {
	c := Cell{f.bench, benchCase, mode, metric, value, unit}
	f.cells = append(f.cells, c)
	f.err = errors.Join(f.err, json.NewEncoder(f.file).Encode(c))
}

// Close ends the file and returns the first error.
func (f *File) Close() error { return errors.Join(f.err, f.file.Close()) }
