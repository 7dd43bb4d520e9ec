package main

import (
	"encoding/json"
	"os"
	"path/filepath"
)

// figures is a file of one JSON object a line.
type figures struct{ file *os.File }

func create(path string) (*figures, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	f, err := os.Create(path)
	return &figures{f}, err
}

func (f *figures) line(benchCase, mode, metric string, value float64, unit string) error {
	return json.NewEncoder(f.file).Encode(struct {
		Bench  string  `json:"bench"`
		Case   string  `json:"case"`
		Mode   string  `json:"mode"`
		Metric string  `json:"metric"`
		Value  float64 `json:"value"`
		Unit   string  `json:"unit"`
	}{"envoy", benchCase, mode, metric, value, unit})
}

func (f *figures) close() error { return f.file.Close() }
