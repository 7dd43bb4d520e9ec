package workload

import (
	"bufio"
	"compress/gzip"
	"embed"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"
)

// The names of the shipped traces.
const (
	Mooncake = "mooncake_conversation_trace"
	Azure    = "azure_llm_inference_trace_conv"
)

//go:embed traces/*.gz
var shipped embed.FS

// Shipped reads a trace of the repository.
func Shipped(name string) (*Workload, error) {
	files, err := shipped.ReadDir("traces")
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		if nameOf(f.Name()) == name {
			file, err := shipped.Open(path.Join("traces", f.Name()))
			if err != nil {
				return nil, err
			}
			return read(f.Name(), file)
		}
	}
	return nil, fmt.Errorf("no trace %q is shipped", name)
}

// Open reads a trace: a .jsonl file in the format of Mooncake's traces or a .csv file in that of Azure's, compressed (.gz, .zst) or not.
func Open(file string) (*Workload, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read
	return read(filepath.Base(file), f)
}

// nameOf is a file's name without its extensions.
func nameOf(file string) string {
	file = plain(file)
	return strings.TrimSuffix(file, path.Ext(file))
}

// plain is a file's name without the extension of its compression.
func plain(file string) string {
	return strings.TrimSuffix(strings.TrimSuffix(file, ".gz"), ".zst")
}

// decompressed reads the content of a file of that name.
func decompressed(file string, r io.Reader) (io.Reader, error) {
	switch path.Ext(file) {
	case ".gz":
		return gzip.NewReader(r)
	case ".zst":
		return zstd.NewReader(r, zstd.WithDecoderConcurrency(1)) // in this goroutine, so that none is left
	}
	return r, nil
}

// traceBlock is the number of tokens of an id in Mooncake's traces. Azure's have none; their prompts are split alike.
const traceBlock = 512

func read(file string, r io.Reader) (*Workload, error) {
	w := &Workload{Name: nameOf(file), BlockTokens: traceBlock}
	r, err := decompressed(file, r)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	file = plain(file)
	switch ext := path.Ext(file); ext {
	case ".jsonl":
		err = w.readJSON(r)
	case ".csv":
		err = w.readCSV(r)
	default:
		err = fmt.Errorf("a trace is a .jsonl or .csv file, this is %q", ext)
	}
	if err == nil && len(w.Requests) < 2 {
		err = errors.New("holds no trace: fewer than two requests")
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	w.number()
	return w, nil
}

func (w *Workload) readJSON(r io.Reader) error {
	lines := json.NewDecoder(bufio.NewReader(r))
	for n := 1; ; n++ {
		var line struct {
			Timestamp float64  `json:"timestamp"`
			Input     int      `json:"input_length"`
			Output    int      `json:"output_length"`
			Blocks    []uint32 `json:"hash_ids"`
		}
		if err := lines.Decode(&line); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("request %d: %w", n, err)
		}
		if want := (line.Input + traceBlock - 1) / traceBlock; line.Input < 1 || line.Output < 1 || len(line.Blocks) != want {
			return fmt.Errorf("request %d: input_length %d, output_length %d, %d hash_ids: wanted at least 1, at least 1, %d",
				n, line.Input, line.Output, len(line.Blocks), want)
		}
		w.Requests = append(w.Requests, Request{
			At: time.Duration(line.Timestamp * float64(time.Millisecond)), Input: line.Input, Output: line.Output, Blocks: line.Blocks,
		})
	}
}

// readCSV reads TIMESTAMP,ContextTokens,GeneratedTokens. No two prompts share anything.
func (w *Workload) readCSV(r io.Reader) error {
	rows := csv.NewReader(r)
	rows.FieldsPerRecord = 3
	if _, err := rows.Read(); err != nil {
		return err
	}
	var next ids
	var first time.Time
	for {
		row, err := rows.Read()
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		at, err1 := time.Parse("2006-01-02 15:04:05.9999999", row[0])
		input, err2 := strconv.Atoi(row[1])
		output, err3 := strconv.Atoi(row[2])
		if err := errors.Join(err1, err2, err3); err != nil {
			return fmt.Errorf("request %d: %w", len(w.Requests)+1, err)
		}
		if len(w.Requests) == 0 {
			first = at
		}
		input, output = max(1, input), max(1, output)
		w.Requests = append(w.Requests, Request{At: at.Sub(first), Input: input, Output: output, Blocks: next.take(nil, input, traceBlock)})
	}
}

// ids returns unused ids.
type ids uint32

// take appends ids until the blocks hold this many tokens.
func (n *ids) take(blocks []uint32, tokens, blockTokens int) []uint32 {
	for len(blocks)*blockTokens < tokens {
		*n++
		blocks = append(blocks, uint32(*n))
	}
	return blocks
}
