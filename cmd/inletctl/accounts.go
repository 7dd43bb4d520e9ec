package main

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/tidwall/gjson"

	"github.com/inlet-proxy/inlet/shared/state/account"
)

var usageColumns = []column{
	{"ACCOUNT", "name"},
	{"LIMIT", "limit"},
	{"CREDIT", "credit"},
	{"USED", "used"},
	{"RESERVED", "reserved"},
	{"REMAINING", "remaining"},
	{"PROXIES", "proxies"},
	{"UNTIL", "end"},
}

func (q *adminClient) usage() *cobra.Command {
	limit := 1000
	cmd := &cobra.Command{
		Use: "usage [TEXT]", Short: "Show what was used of each limit", Args: cobra.MaximumNArgs(1),
		Long: `Lists the counters of all windows that are not over, or of those whose names contain a text, such as an app or a product. What is reserved was
granted to proxies and not used yet. The table has money in its currency; JSON has it in billionths, as the admin API does.`,
		Example: "  inletctl quota usage\n  inletctl quota usage app=shop",
		RunE: q.run(func(cmd *cobra.Command, args []string) error {
			query := url.Values{"limit": {strconv.Itoa(limit)}}
			if len(args) > 0 {
				query.Set("contains", args[0])
			}
			return q.showAccounts(cmd, "GET", "/v1/accounts?"+query.Encode(), nil, "accounts")
		}),
	}
	cmd.Flags().IntVar(&limit, "limit", limit, "show at most so many")
	return cmd
}

func (q *adminClient) reset() *cobra.Command {
	return &cobra.Command{
		Use: "reset ACCOUNT", Short: "Let a counter begin again", Args: cobra.ExactArgs(1),
		Long: `Makes an account's whole limit available again, until its window ends. A grant made before in this window ends with it: after a reset there is left
what the limit says, and no more. usage lists the accounts.`,
		Example: "  inletctl quota reset trial/requests:1m/app=shop",
		RunE: q.run(func(cmd *cobra.Command, args []string) error {
			return q.showAccounts(cmd, "POST", "/v1/accounts/reset", map[string]any{"account": args[0]}, "")
		}),
	}
}

func (q *adminClient) grant() *cobra.Command {
	return &cobra.Command{
		Use: "grant ACCOUNT AMOUNT", Short: "Add to a limit until its window ends", Args: cobra.ExactArgs(2),
		Long: `Adds an amount to an account's limit, until its window ends. usage lists the accounts. The amount of a budget is in its currency, such as 12.50;
others may be written 5000 or 5k.`,
		Example: `  inletctl quota grant trial/total-tokens:1m/app=shop 5000
  inletctl quota grant gold/budget:1mo/app=shop 12.50`,
		RunE: q.run(func(cmd *cobra.Command, args []string) error {
			amount, err := parseAmount(args[0], args[1])
			if err != nil {
				return usageError{err}
			}
			return q.showAccounts(cmd, "POST", "/v1/accounts/grant", map[string]any{"account": args[0], "amount": amount}, "")
		}),
	}
}

// nano is the number of units in 1 of a currency.
const nano = 1_000_000_000

// isBudget reports whether an account counts money: its name has the limit's name, what is counted, and the values.
func isBudget(name string) bool {
	_, rest, _ := strings.Cut(name, "/")
	return strings.HasPrefix(rest, "budget:")
}

// parseAmount reads an amount for an account.
func parseAmount(name, text string) (int64, error) {
	scale := int64(1)
	if isBudget(name) {
		scale = nano
	}
	amount, _, problem := account.ParseDecimalRate(text+"/s", scale)
	if problem != "" {
		return 0, fmt.Errorf("%q is not an amount such as 5000 or 5k, or 12.50 for a budget", text)
	}
	return amount, nil
}

// showAccounts is show for accounts. Its table has money in its currency.
func (q *adminClient) showAccounts(cmd *cobra.Command, method, path string, body any, list string) error {
	return q.showCells(cmd, method, path, body, list, usageColumns, func(entry gjson.Result, member string) string {
		v := entry.Get(member)
		switch member {
		case "limit", "credit", "used", "reserved", "remaining":
			if v.Exists() && isBudget(entry.Get("name").Str) {
				return currency(v.Int())
			}
		}
		return cell(v)
	})
}

// currency writes money with at least two decimals.
func currency(n int64) string {
	sign := ""
	if n < 0 {
		sign, n = "-", -n
	}
	decimals := fmt.Sprintf("%09d", n%nano)
	return fmt.Sprintf("%s%d.%s", sign, n/nano, decimals[:2]+strings.TrimRight(decimals[2:], "0"))
}
