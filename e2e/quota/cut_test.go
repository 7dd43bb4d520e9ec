package quota_test

import (
	"bufio"
	"context"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/e2e/stack"
)

// burstLimit is that of the product burst, in tokens for one window.
const burstLimit = 200_000

// mostTokens bounds the responses of the load.
const mostTokens = 64

// testCut sends as many streams as the machine can, and cuts half of them at random. The limit holds within 1 % either way:
// more is not charged, and less is not left.
func testCut(t *testing.T, s *stack.Stack, urls ...string) {
	const clients = 48
	before, err := servedBy(t.Context(), s)
	require.NoError(t, err)
	var (
		requests, admitted, cut, refused atomic.Int64
		all                              sync.WaitGroup
		began                            = time.Now()
	)
	for n := range clients {
		all.Go(func() {
			r := rand.New(rand.NewPCG(uint64(n), 2000))
			for time.Since(began) < *burst || refused.Load() == 0 && time.Since(began) < patience {
				after := -1
				if r.IntN(2) == 0 {
					after = r.IntN(mostTokens)
				}
				status, wasCut, err := stream(t.Context(), urls[r.IntN(len(urls))], kinds[1].with("tell me", 1+r.IntN(mostTokens)), after)
				requests.Add(1)
				switch {
				case err == nil && status == http.StatusServiceUnavailable: // the companion was late
				case err != nil || status != http.StatusOK && status != http.StatusTooManyRequests:
					t.Errorf("status %d: %v", status, err)
					return
				case status == http.StatusTooManyRequests:
					refused.Add(1)
				default:
					admitted.Add(1)
				}
				if wasCut {
					cut.Add(1)
				}
			}
		})
	}
	all.Wait()
	took := time.Since(began)
	require.Positive(t, refused.Load(), "the limit was reached")
	// What was reserved for nothing has come back: others take the rest.
	for size := mostTokens; size > 0; size /= 4 {
		for ok := true; ok; {
			got := must(t, urls[0]+chatPath, kinds[0].with("go on", size), "x-api-key", keyOf("burst"))
			require.Contains(t, []int{http.StatusOK, http.StatusTooManyRequests, http.StatusServiceUnavailable}, got.status, got.body)
			ok = got.status != http.StatusTooManyRequests
		}
	}
	after, err := servedBy(t.Context(), s)
	require.NoError(t, err)
	charged, err := s.Used(t.Context(), "burst/total-tokens", "app=burst")
	require.NoError(t, err)
	reported := after.less(before).total()
	t.Logf("%.0f requests a second for %v, %d admitted, %d cut, %d refused; limit %d: charged %d (%+.2f %%), the replicas report %d (%+.2f %%)",
		float64(requests.Load())/took.Seconds(), took.Round(time.Millisecond), admitted.Load(), cut.Load(), refused.Load(),
		burstLimit, charged, 100*float64(charged-burstLimit)/burstLimit, reported, 100*float64(reported-burstLimit)/burstLimit)
	require.InDelta(t, burstLimit, charged, burstLimit/100)
	require.InDelta(t, charged, reported, float64(cut.Load()*mostTokens), "only cut streams are charged by what was seen of them")
}

// stream asks for a stream and leaves after some events, or reads it to its end if after is -1.
func stream(ctx context.Context, url, body string, after int) (status int, cut bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url+chatPath, strings.NewReader(body))
	if err != nil {
		return 0, false, err
	}
	req.Header.Set("content-type", "application/json")
	req.Header.Set("x-api-key", keyOf("burst"))
	res, err := kept.Do(req)
	if err != nil {
		return 0, false, err
	}
	defer func() { _ = res.Body.Close() }()
	events := 0
	for lines := bufio.NewScanner(res.Body); lines.Scan(); {
		if !strings.HasPrefix(lines.Text(), "data: ") {
			continue
		}
		if events++; events == after+1 {
			return res.StatusCode, lines.Text() != "data: [DONE]", nil
		}
	}
	return res.StatusCode, false, nil
}
