package quota

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/shared/state/account"
)

// BenchmarkExchange is a message with ten accounts, of which each uses some more.
func BenchmarkExchange(b *testing.B) {
	for _, dir := range []string{"", b.TempDir()} {
		name := "memory"
		if dir != "" {
			name = "journal"
		}
		b.Run(name, func(b *testing.B) {
			s, err := OpenEmbedded(EmbeddedOptions{Dir: dir})
			require.NoError(b, err)
			defer s.Close()
			m := account.Message{Proxy: "p", Time: 1}
			for i := range 10 {
				m.Accounts = append(m.Accounts, account.Entry{Name: fmt.Sprint("trial/requests:1mo/app=", i), Period: "1mo", Limit: 1 << 40})
			}
			r, err := s.Exchange(b.Context(), &m)
			require.NoError(b, err)
			for time.Now().UnixMilli() < r.Now+account.Lease.Milliseconds()/2 && b.N > 1 {
				time.Sleep(time.Millisecond)
			}
			b.ResetTimer()
			b.ReportAllocs()
			for n := range b.N {
				for i := range m.Accounts {
					e := &m.Accounts[i]
					e.Start, e.Window, e.Seq, e.Used, e.Granted = r.Accounts[i].Start, 1, int64(n)+2, int64(n), int64(n)
					e.Want = int64(n % 2)
				}
				if _, err := s.Exchange(b.Context(), &m); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
