package main

import (
	"fmt"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"
)

func quotaCommand() *cobra.Command {
	q := new(adminClient)
	cmd := &cobra.Command{
		Use:   "quota",
		Short: "Read and change who may call, how often, and how many tokens: the companion's admin API",
		Long: `Talks to the admin API of a companion that shares quotas: developers own apps, apps own keys, and keys and apps subscribe to products, which have
limits. Changes reach the proxies within a second. A key is shown once, when it is made or rotated: the companion saves only its SHA-256.

The companion needs quota.admin in its configuration. The token is that of its quota.admin.tokenFile.`,
		Example: `  inletctl quota products list --token-file admin-token
  inletctl quota usage -o json`,
	}
	f := cmd.PersistentFlags()
	f.StringVar(&q.url, "admin", or(os.Getenv("INLET_ADMIN"), "http://127.0.0.1:9003"), "URL of the admin API; variable INLET_ADMIN")
	f.StringVar(&q.tokenFile, "token-file", os.Getenv("INLET_ADMIN_TOKEN_FILE"), "file with the admin API's token; variable INLET_ADMIN_TOKEN_FILE")
	f.StringVarP(&q.format, "output", "o", "table", "table or json")
	cmd.AddCommand(q.developers(), q.apps(), q.products(), q.keys(), q.apply(), q.usage(), q.reset(), q.grant())
	return cmd
}

func or(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

// group is a command with a list of entries: it has list, create and delete, and what else there is.
func (q *adminClient) group(plural, one, about string, columns []column, create *cobra.Command, more ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use: plural, Short: about, Long: about + ".",
		Example: "  inletctl quota " + plural + " list",
	}
	list := &cobra.Command{
		Use: "list", Short: "List " + plural, Long: "Lists all " + plural + ".", Args: cobra.NoArgs,
		Example: "  inletctl quota " + plural + " list\n  inletctl quota " + plural + " list -o json",
		RunE: q.run(func(cmd *cobra.Command, _ []string) error {
			return q.show(cmd, "GET", "/v1/"+plural, nil, plural, columns)
		}),
	}
	remove := &cobra.Command{
		Use: "delete NAME", Short: "Delete " + one, Long: "Deletes " + one + ". Nothing else may name it any more.", Args: cobra.ExactArgs(1),
		Example: "  inletctl quota " + plural + " delete old",
		RunE: q.run(func(cmd *cobra.Command, args []string) error {
			return q.show(cmd, "DELETE", "/v1/"+plural+"/"+url.PathEscape(args[0]), nil, "", nil)
		}),
	}
	cmd.AddCommand(list, create, remove)
	cmd.AddCommand(more...)
	return cmd
}

func (q *adminClient) developers() *cobra.Command {
	columns := []column{{"NAME", "name"}}
	create := &cobra.Command{
		Use: "create NAME", Short: "Add a developer", Long: "Adds a developer, who can own apps.", Args: cobra.ExactArgs(1),
		Example: "  inletctl quota developers create ann",
		RunE: q.run(func(cmd *cobra.Command, args []string) error {
			return q.show(cmd, "POST", "/v1/developers", map[string]any{"name": args[0]}, "", columns)
		}),
	}
	return q.group("developers", "a developer", "Developers, who own apps", columns, create)
}

func (q *adminClient) apps() *cobra.Command {
	columns := []column{{"NAME", "name"}, {"DEVELOPER", "developer"}, {"PRODUCTS", "products"}, {"STATUS", "status"}}
	var developer, status string
	var products []string
	create := &cobra.Command{
		Use: "create NAME", Short: "Add an app", Args: cobra.ExactArgs(1),
		Long: `Adds an app, which owns keys and subscribes to products. A product whose approval is manual is asked for with its status: --product
gold=approved.`,
		Example: "  inletctl quota apps create shop --developer ann --product trial --product gold=approved",
		RunE: q.run(func(cmd *cobra.Command, args []string) error {
			body := map[string]any{"name": args[0]}
			set(body, "developer", developer)
			set(body, "status", status)
			setList(body, "products", subscriptions(products))
			return q.show(cmd, "POST", "/v1/apps", body, "", columns)
		}),
	}
	create.Flags().StringVar(&developer, "developer", "", "who owns it")
	create.Flags().StringArrayVar(&products, "product", nil, "a product that it subscribes to, or product=status; repeatable")
	create.Flags().StringVar(&status, "status", "", "approved, pending or revoked; default: approved")
	return q.group("apps", "an app", "Apps, which own keys and subscribe to products", columns, create,
		q.setStatus("approve", "approved", "Approve an app", "Approves an app: requests with its keys are admitted within a second.", columns),
		q.setStatus("revoke", "revoked", "Revoke an app", "Revokes an app: requests with any of its keys are refused within a second. It stays listed.", columns))
}

func (q *adminClient) products() *cobra.Command {
	columns := []column{
		{"NAME", "name"},
		{"APPROVAL", "approval"},
		{"REQUESTS", "requests"},
		{"TOKENS", "tokens"},
		{"CONCURRENCY", "concurrency"},
		{"SPIKE", "spike"},
		{"BUDGET", "budget"},
		{"MODELS", "models"},
	}
	var file, approval, requests, total, prompt, completion, spike, budget string
	var models []string
	var concurrency int
	create := &cobra.Command{
		Use: "create [NAME]", Short: "Add a product", Args: cobra.MaximumNArgs(1),
		Long: `Adds a product, which apps and keys subscribe to. Its limits hold for each app. A rate is an amount per time: 100/min, 200k/hour, 1M/month,
or several: "5/min, 1000/day". What has no flag here can be said in a file, in YAML or JSON, as in the filter's configuration: operations, the zone and
start of windows, the weight of cached tokens.`,
		Example: `  inletctl quota products create trial --requests 5/min --tokens 300/min
  inletctl quota products create standard --requests 100/min --tokens 20k/min --model llama --model "gemma-*"
  inletctl quota products create -f product.yaml`,
		RunE: q.run(func(cmd *cobra.Command, args []string) error {
			body := map[string]any{}
			if file != "" {
				text, err := readInput(cmd, file)
				if err != nil {
					return usageError{err}
				}
				if err := yaml.Unmarshal(text, &body); err != nil {
					return usageError{fmt.Errorf("%s: %w", file, err)}
				}
			}
			if len(args) > 0 {
				body["name"] = args[0]
			}
			set(body, "approval", approval)
			set(body, "requests", requests)
			set(body, "spike", spike)
			set(body, "budget", budget)
			setList(body, "models", models)
			if concurrency > 0 {
				body["concurrency"] = concurrency
			}
			if total+prompt+completion != "" {
				tokens, _ := body["tokens"].(map[string]any)
				if tokens == nil {
					tokens = map[string]any{}
				}
				set(tokens, "total", total)
				set(tokens, "prompt", prompt)
				set(tokens, "completion", completion)
				body["tokens"] = tokens
			}
			return q.show(cmd, "POST", "/v1/products", body, "", columns)
		}),
	}
	f := create.Flags()
	f.StringVarP(&file, "file", "f", "", "file with the product; - is the standard input")
	f.StringVar(&requests, "requests", "", "requests per time")
	f.StringVar(&total, "tokens", "", "tokens per time, of prompts and completions together")
	f.StringVar(&prompt, "prompt-tokens", "", "tokens of prompts per time")
	f.StringVar(&completion, "completion-tokens", "", "tokens of completions per time")
	f.IntVar(&concurrency, "concurrency", 0, "requests at the same time")
	f.StringVar(&spike, "spike", "", "requests per time, spaced evenly")
	f.StringVar(&budget, "budget", "", "money per time: 25.00/month")
	f.StringArrayVar(&models, "model", nil, "a model that it allows, with * for any text; repeatable; default: all")
	f.StringVar(&approval, "approval", "", "auto or manual; default: auto")
	return q.group("products", "a product", "Products, which have limits and which apps and keys subscribe to", columns, create)
}

func (q *adminClient) keys() *cobra.Command {
	columns := []column{{"NAME", "name"}, {"APP", "app"}, {"PRODUCTS", "products"}, {"STATUS", "status"}, {"EXPIRES", "expires"}}
	shown := append([]column{{"KEY", "key"}}, columns...)
	var app, expires string
	var products []string
	create := &cobra.Command{
		Use: "create NAME", Short: "Make a key, and show it this once", Args: cobra.ExactArgs(1),
		Long:    "Makes a key and prints it. Nobody can print it again: only its SHA-256 is saved.",
		Example: "  inletctl quota keys create demo --app shop --expires 2027-01-31T00:00:00Z\n  inletctl quota keys create demo --app shop -o json",
		RunE: q.run(func(cmd *cobra.Command, args []string) error {
			body := map[string]any{"name": args[0]}
			set(body, "app", app)
			set(body, "expires", expires)
			setList(body, "products", subscriptions(products))
			return q.show(cmd, "POST", "/v1/keys", body, "", shown)
		}),
	}
	create.Flags().StringVar(&app, "app", "", "the app that owns it; default: one with the key's name")
	create.Flags().StringArrayVar(&products, "product", nil, "a product, instead of those of the app; repeatable")
	create.Flags().StringVar(&expires, "expires", "", "when it expires: 2027-01-31T00:00:00Z; default: never")

	var overlap time.Duration
	rotate := &cobra.Command{
		Use: "rotate NAME", Short: "Replace a key by a new one", Args: cobra.ExactArgs(1),
		Long: `Makes a new key under the same name and prints it. The old one stops at once, or after --overlap: until then it is valid under the name with a
number at its end.`,
		Example: "  inletctl quota keys rotate demo --overlap 24h",
		RunE: q.run(func(cmd *cobra.Command, args []string) error {
			return q.show(cmd, "POST", "/v1/keys/"+url.PathEscape(args[0])+"/rotate", map[string]any{"overlap": overlap.String()}, "", shown)
		}),
	}
	rotate.Flags().DurationVar(&overlap, "overlap", 0, "for how long the old key stays valid")
	revoke := &cobra.Command{
		Use: "revoke NAME", Short: "Revoke a key", Args: cobra.ExactArgs(1),
		Long:    "Revokes a key, and what rotations left of it: requests with them are refused within a second. It stays listed.",
		Example: "  inletctl quota keys revoke demo",
		RunE: q.run(func(cmd *cobra.Command, args []string) error {
			return q.show(cmd, "POST", "/v1/keys/"+url.PathEscape(args[0])+"/revoke", map[string]any{}, "", columns)
		}),
	}
	return q.group("keys", "a key", "API keys, without the keys themselves", columns, create, rotate, revoke)
}

func set(body map[string]any, key, value string) {
	if value != "" {
		body[key] = value
	}
}

func setList[T any](body map[string]any, key string, values []T) {
	if len(values) > 0 {
		body[key] = values
	}
}

// subscriptions reads product and product=status.
func subscriptions(flags []string) (all []any) {
	for _, flag := range flags {
		if name, status, ok := strings.Cut(flag, "="); ok {
			all = append(all, map[string]string{"name": name, "status": status})
		} else {
			all = append(all, flag)
		}
	}
	return all
}
