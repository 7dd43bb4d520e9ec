package account_test

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/inlet-proxy/inlet/shared/state/account"
)

func name(t *rapid.T) string { return rapid.StringMatching(`[ -~]{1,30}`).Draw(t, "name") }

func number(t *rapid.T) int64 { return rapid.Int64Range(0, account.Most).Draw(t, "number") }

// What is written is read, by this package and by encoding/json.
func TestMessagesReadBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := account.Message{Proxy: name(t), Document: number(t), Generation: rapid.Uint32().Draw(t, "generation"), Time: number(t)}
		r := account.Reply{Generation: m.Generation, Time: m.Time, Now: number(t) + 1, Proxies: 3, Settling: rapid.Bool().Draw(t, "settling"), Document: 9}
		for range rapid.IntRange(1, 3).Draw(t, "accounts") {
			n := func() int64 { return number(t) }
			m.Accounts = append(m.Accounts, account.Entry{
				Name: name(t), Period: "1m", Limit: n(), Start: n(), Window: n(), Seq: n(), Used: n(), Back: n(), Said: n(), Released: n(), Granted: n(),
				Held: n(), Need: n(), Want: n(), Rate: n(),
			})
			r.Accounts = append(r.Accounts, account.Grant{
				Name: name(t), Start: n(), End: n(), Window: n(), Seq: n(), Used: n(), Back: n(), Released: n(), Granted: n(), Batch: n(), Free: n(), Total: n(), Credit: -n(),
			})
		}
		text := m.Append(nil)
		read, err := account.ParseMessage(text)
		require.NoError(t, err)
		require.Equal(t, m, read)
		var decoded account.Message
		require.NoError(t, json.Unmarshal(text, &decoded))
		require.Equal(t, m, decoded)

		text = r.Append(nil)
		reply, err := account.ParseReply(text)
		require.NoError(t, err)
		require.Equal(t, r, reply)
		var decodedReply account.Reply
		require.NoError(t, json.Unmarshal(text, &decodedReply))
		require.Equal(t, r, decodedReply)
	})
	r := account.Reply{Now: 1, Keys: []byte(`{"a":[1]}`)}
	reply, err := account.ParseReply(r.Append(nil))
	require.NoError(t, err)
	require.JSONEq(t, `{"a":[1]}`, string(reply.Keys))
}

// What nobody may say is refused, or brought into bounds.
func TestForeignMessages(t *testing.T) {
	for _, text := range []string{
		"", "{", "null", "[]", "{}", `{"proxy":""}`, `{"proxy":"` + strings.Repeat("x", 256) + `"}`, `{"proxy":"p","accounts":[{}]}`, `{"proxy":"p","accounts":[{"k":"a"}]}`,
		`{"proxy":"p","accounts":[{"k":"` + strings.Repeat("x", 256) + `","p":"1m"}]}`, `{"proxy":"p","accounts":[` + strings.Repeat(`{},`, 5000) + `{}]}`,
	} {
		_, err := account.ParseMessage([]byte(text))
		require.Error(t, err, text)
	}
	m, err := account.ParseMessage([]byte(`{"proxy":"p","accounts":[{"k":"a","p":"1m","l":-5,"u":-5,"g":9223372036854775807,"m":1e300,"x":"y"}]}`))
	require.NoError(t, err)
	require.Zero(t, m.Accounts[0].Limit)
	m, err = account.ParseMessage([]byte(`{"proxy":"p","document":9223372036854775807,"accounts":[{"k":"a","p":"1m","l":-5,"u":-5,"g":9223372036854775807}]}`))
	require.NoError(t, err)
	require.EqualValues(t, math.MaxInt64, m.Document)
	require.Zero(t, m.Accounts[0].Used)
	require.Equal(t, 2*account.Most, m.Accounts[0].Granted)
}

// An allocator that is told nonsense never grants more than the limit, and never panics.
func FuzzAllocator(f *testing.F) {
	f.Add([]byte(`{"proxy":"p","generation":7,"t":1,"accounts":[{"k":"a","p":"1m","l":100,"s":1795003200000,"w":1,"q":5,"u":1,"z":2,"a":1,"r":1,"g":3,"h":4,"m":5,"n":6,"x":7}]}`), int64(100))
	f.Add([]byte(`{"proxy":"p","accounts":[{"k":"a","p":"1h flexi","l":100,"s":1},{"k":"b","p":"-","l":5,"q":1,"n":5}]}`), int64(3_600_000))
	f.Add([]byte(`{"proxy":"p","accounts":[{"k":"a","p":"1mo zone=Europe/Berlin from=5","l":2000,"q":9,"m":5,"x":100000}]}`), int64(math.MaxInt32))
	f.Add([]byte(`{"proxy":"p","accounts":[{"k":"a","p":"1s from=0","l":5,"s":-9223372036854775807,"u":1},{"k":"b","p":"1s from=8000000000000","l":5,"s":9223372036854775807,"u":1}]}`), int64(1))
	f.Fuzz(func(t *testing.T, body []byte, later int64) {
		m, err := account.ParseMessage(body)
		if err != nil {
			return
		}
		a := account.NewAllocator(7, begin, true)
		for i := range int64(3) {
			m.Proxy = string(rune('a' + i))
			r := a.Answer(begin.Add(time.Duration(later%(1<<40)*1_000_000*i/3)), &m)
			_, err := account.ParseReply(r.Append(nil))
			require.NoError(t, err)
		}
		for name, al := range a.Accounts {
			granted, claimed := int64(0), int64(0)
			for _, s := range al.Shares {
				granted += max(s.Granted-s.Released, 0)
			}
			for _, e := range m.Accounts {
				if e.Name == name {
					claimed = max(claimed, e.Granted, e.Used)
				}
			}
			require.LessOrEqual(t, granted, al.Limit+3*claimed)
		}
	})
}

// The accounts are bounded, the keys are not: a directory has as many as fit into it.
func TestManyKeysAndManyAccounts(t *testing.T) {
	keys := []byte(`{"developers":[],"apps":[],"keys":[`)
	for i := range 10_000 {
		if i > 0 {
			keys = append(keys, ',')
		}
		keys = fmt.Appendf(keys, `{"name":"k%d","sha256":"%064x","status":"active"}`, i, i)
	}
	keys = append(keys, `],"products":[]}`...)
	reply := account.Reply{Now: 1, Document: 7, Keys: keys, Accounts: make([]account.Grant, 4096)}
	read, err := account.ParseReply(reply.Append(nil))
	require.NoError(t, err)
	require.Equal(t, string(keys), string(read.Keys))
	require.Len(t, read.Accounts, 4096)

	reply.Keys, reply.Accounts = nil, append(reply.Accounts, account.Grant{})
	_, err = account.ParseReply(reply.Append(nil))
	require.Error(t, err)
}

// A table that hears nonsense never panics.
func FuzzHeard(f *testing.F) {
	f.Add([]byte(`{"generation":7,"t":1795003200000,"now":1795003200000,"proxies":2,"settling":true,"accounts":[{"k":"tokens","s":1795003200000,"e":1795003260000,"w":5,"q":1,"u":1,"r":1,"g":50,"b":3,"f":4,"v":5,"c":6}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		table := account.NewMemory(account.Options{Accounts: 10}, new(sync.Mutex))
		d := request(sharedDemand(demand("tokens", 100, minute, 5)))
		table.Take(begin, d, hold)
		table.Ask(begin, 1, nil, d)
		_ = table.Heard(begin, body)
		table.Take(begin, d, hold)
		_ = table.Settle(begin, d, []int64{3})
		if report := table.Report(begin.Add(hold), 1, nil, 10); report != nil {
			_, err := account.ParseMessage(report)
			require.NoError(t, err)
		}
	})
}
