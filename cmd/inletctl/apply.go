package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/spf13/cobra"
	"github.com/tidwall/gjson"
	"go.yaml.in/yaml/v3"
)

// entries are what a file for apply may have.
type entries struct {
	Products   []map[string]any
	Developers []map[string]any
	Apps       []map[string]any
	Keys       any
}

func (q *adminClient) apply() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use: "apply -f FILE", Short: "Create or change what a file lists", Args: cobra.NoArgs,
		Long: `Creates each product, developer and app in a file, or replaces the one with its name. The file is YAML or JSON with the lists products,
developers and apps, as in the configuration of the filter quota. A product can be changed while apps use it: what was used of its limits stays used.
What the file does not list stays as it is. Keys are not in it: see keys create.

The entries are sent one after another. If one is refused, those before it are done and stay.`,
		Example: "  inletctl quota apply -f quota.yaml",
		RunE: q.run(func(cmd *cobra.Command, _ []string) error {
			all, err := readEntries(cmd, file)
			if err != nil {
				return usageError{err}
			}
			return q.putAll(cmd, all)
		}),
	}
	cmd.Flags().StringVarP(&file, "file", "f", "", "file with products, developers and apps; - is the standard input")
	_ = cmd.MarkFlagRequired("file") // fails only for a flag that does not exist
	return cmd
}

func readEntries(cmd *cobra.Command, file string) (all entries, err error) {
	text, err := readInput(cmd, file)
	if err != nil {
		return all, err
	}
	d := yaml.NewDecoder(strings.NewReader(string(text)))
	d.KnownFields(true)
	if err := d.Decode(&all); err != nil {
		return all, fmt.Errorf("%s: want the lists products, developers and apps: %w", file, err)
	}
	if all.Keys != nil {
		return all, fmt.Errorf("%s: keys: a key is made by inletctl quota keys create", file)
	}
	return all, nil
}

// done is the result for one entry.
type done struct {
	Kind   string `json:"kind"`
	Name   string `json:"name"`
	Result string `json:"result"`
}

// putAll sends the entries, first those that others name.
func (q *adminClient) putAll(cmd *cobra.Command, all entries) error {
	results := []done{}
	var failed error
lists:
	for _, list := range []struct {
		kind  string
		items []map[string]any
	}{{"products", all.Products}, {"developers", all.Developers}, {"apps", all.Apps}} {
		for i, item := range list.items {
			name, _ := item["name"].(string)
			result, err := q.put(cmd, list.kind, name, item)
			if err != nil {
				failed = fmt.Errorf("%s[%d] %s: %w", list.kind, i, name, err)
				break lists
			}
			results = append(results, done{strings.TrimSuffix(list.kind, "s"), name, result})
		}
	}
	if q.format == "json" {
		e := json.NewEncoder(cmd.OutOrStdout())
		e.SetIndent("", "  ")
		return errors.Join(failed, e.Encode(results))
	}
	rows := make([][]string, len(results))
	for i, r := range results {
		rows[i] = []string{r.Kind, r.Name, r.Result}
	}
	printTable(cmd.OutOrStdout(), []string{"KIND", "NAME", "RESULT"}, rows)
	return failed
}

// put replaces an entry, or creates it if there is none with its name.
func (q *adminClient) put(cmd *cobra.Command, kind, name string, item map[string]any) (string, error) {
	if name == "" {
		return "", errors.New(`missing key "name"`)
	}
	_, err := q.call(cmd, "PUT", "/v1/"+kind+"/"+url.PathEscape(name), item)
	var r *refused
	if !errors.As(err, &r) || r.status != http.StatusNotFound {
		return "changed", err
	}
	_, err = q.call(cmd, "POST", "/v1/"+kind, item)
	return "created", err
}

// setStatus makes the command that gives an app a status, and leaves the rest of it as it is.
func (q *adminClient) setStatus(verb, status, short, long string, columns []column) *cobra.Command {
	return &cobra.Command{
		Use: verb + " NAME", Short: short, Long: long, Args: cobra.ExactArgs(1),
		Example: "  inletctl quota apps " + verb + " shop",
		RunE: q.run(func(cmd *cobra.Command, args []string) error {
			path := "/v1/apps/" + url.PathEscape(args[0])
			text, err := q.call(cmd, "GET", path, nil)
			if err != nil {
				return err
			}
			app, _ := gjson.ParseBytes(text).Value().(map[string]any)
			if app == nil {
				return errors.New("the response is no app; is this the companion's admin API?")
			}
			app["status"] = status
			return q.show(cmd, "PUT", path, app, "", columns)
		}),
	}
}
