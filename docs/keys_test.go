package docs_test

import (
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/filters"
	"github.com/inlet-proxy/inlet/internal/schema"
)

var update = flag.Bool("update", false, "write the key tables of the documentation again")

// keyTable is the place of a table that is written from the code.
var keyTable = regexp.MustCompile(`(?s)(<!-- keys of ([a-z]+), written by make docs -->\n).*?(<!-- end of keys -->)`)

// TestKeyTables compares the key tables of the documentation with the code that reads the configuration.
func TestKeyTables(t *testing.T) {
	tables := map[string]string{}
	for page, text := range pages(t) {
		written := keyTable.ReplaceAllStringFunc(text, func(old string) string {
			m := keyTable.FindStringSubmatch(old)
			tables[m[2]] = filepath.Base(filepath.Dir(page))
			write := func() (string, error) { return schema.FilterTable(m[2]) }
			if m[2] == "chain" {
				write = schema.ChainTable
			}
			table, err := write()
			require.NoError(t, err, "%s: keys of %s", page, m[2])
			return m[1] + table + m[3]
		})
		if *update && written != text {
			require.NoError(t, os.WriteFile(page, []byte(written), 0o644))
			continue
		}
		require.Equal(t, written, text, "%s: a key table is not what the code reads: run `make docs`", page)
	}
	require.Contains(t, tables, "chain")
	for _, f := range filters.All {
		require.Equal(t, f.Name, tables[f.Name], "the README of %s has its key table", f.Name)
	}
}
