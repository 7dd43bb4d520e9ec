package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/tidwall/gjson"

	"github.com/inlet-proxy/inlet/internal/companion/http1"
)

// adminClient talks to the companion's admin API.
type adminClient struct {
	url, tokenFile, format string
}

// column is a column of a table: its title and the member of the entry.
type column struct{ title, member string }

// run checks the flags that all commands share.
func (q *adminClient) run(f func(*cobra.Command, []string) error) func(*cobra.Command, []string) error {
	return faults(func(cmd *cobra.Command, args []string) error {
		if q.format != "table" && q.format != "json" {
			return usageError{fmt.Errorf("--output=%s: it is table or json", q.format)}
		}
		if u, err := url.Parse(q.url); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			return usageError{fmt.Errorf("--admin=%s: it is not a URL such as http://127.0.0.1:9003", q.url)}
		}
		if q.tokenFile == "" {
			return usageError{errors.New("which token? set --token-file, or the variable INLET_ADMIN_TOKEN_FILE, to the file that quota.admin.tokenFile names in the companion's configuration")}
		}
		return f(cmd, args)
	})
}

// adminTimeout is how long the admin API may take.
const adminTimeout = 10 * time.Second

// show calls the admin API and prints the response: the entries in list, or the one that it is.
func (q *adminClient) show(cmd *cobra.Command, method, path string, body any, list string, columns []column) error {
	return q.showCells(cmd, method, path, body, list, columns, func(entry gjson.Result, member string) string { return cell(entry.Get(member)) })
}

// showCells is show with another way to write the cells of a table.
func (q *adminClient) showCells(cmd *cobra.Command, method, path string, body any, list string, columns []column, write func(entry gjson.Result, member string) string) error {
	text, err := q.call(cmd, method, path, body)
	if err != nil {
		return err
	}
	out := cmd.OutOrStdout()
	if q.format == "json" {
		_, err := out.Write(text)
		return err
	}
	if len(text) == 0 {
		fmt.Fprintln(out, "done")
		return nil
	}
	entries := []gjson.Result{gjson.ParseBytes(text)}
	if list != "" {
		entries = entries[0].Get(list).Array()
	}
	var head []string
	for _, c := range columns {
		head = append(head, c.title)
	}
	var rows [][]string
	for _, e := range entries {
		var row []string
		for _, c := range columns {
			row = append(row, write(e, c.member))
		}
		rows = append(rows, row)
	}
	printTable(out, head, rows)
	if all := gjson.GetBytes(text, "total").Int(); all > int64(len(rows)) {
		fmt.Fprintf(out, "%d more; see --limit\n", all-int64(len(rows)))
	}
	return nil
}

// cell is a value as a table shows it.
func cell(v gjson.Result) string {
	switch {
	case !v.Exists():
		return "-"
	case v.IsArray():
		var all []string
		for _, item := range v.Array() {
			if item.IsObject() {
				all = append(all, item.Get("name").Str+"="+item.Get("status").Str)
			} else {
				all = append(all, item.String())
			}
		}
		return strings.Join(all, ", ")
	case v.IsObject():
		var all []string
		v.ForEach(func(key, item gjson.Result) bool {
			all = append(all, key.Str+" "+item.String())
			return true
		})
		return strings.Join(all, "; ")
	}
	return v.String()
}

func (q *adminClient) call(cmd *cobra.Command, method, path string, body any) ([]byte, error) {
	token, err := http1.ReadToken(q.tokenFile)
	if err != nil {
		return nil, err
	}
	var send io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		send = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(cmd.Context(), method, strings.TrimSuffix(q.url, "/")+path, send)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	client := &http.Client{Timeout: adminTimeout}
	resp, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("%w; does the companion run, with quota.admin in its configuration?", err)
	}
	defer resp.Body.Close() //nolint:errcheck // it was read
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode >= http.StatusBadRequest {
		return nil, refusal(resp, text)
	}
	return text, nil
}

// refused is an error response of the admin API.
type refused struct {
	status int
	text   string
}

func (r *refused) Error() string { return r.text }

// refusal is what the admin API says is wrong, and what to do.
func refusal(resp *http.Response, text []byte) error {
	message := gjson.GetBytes(text, "error.message").Str
	if message == "" {
		return fmt.Errorf("%s: %s; is this the companion's admin API?", resp.Status, strings.TrimSpace(string(text)))
	}
	if fix := gjson.GetBytes(text, "error.fix").Str; fix != "" {
		message += "\nfix: " + fix
	}
	return &refused{resp.StatusCode, message}
}
