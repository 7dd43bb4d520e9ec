package kube_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func readAll(resp *http.Response) string {
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// answer is the outcome of one request.
type answer struct {
	sent, ended time.Time
	replica     string
	failure     string // "" for a good response
}

// traffic is clients that ask all the time.
type traffic struct {
	t       *testing.T
	stop    context.CancelFunc
	wait    sync.WaitGroup
	mu      sync.Mutex
	answers []answer
}

// startTraffic lets some clients ask, each one question after the other and each question another one, until the test ends.
func startTraffic(t *testing.T, url string, clients int) *traffic {
	tr := &traffic{t: t}
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	tr.stop = stop
	t.Cleanup(tr.end)
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: clients}, Timeout: 20 * time.Second}
	for i := range clients {
		tr.wait.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				a := ask(client, url, fmt.Sprintf("Client %d asks question %d.", i, n))
				tr.mu.Lock()
				tr.answers = append(tr.answers, a)
				tr.mu.Unlock()
			}
			client.CloseIdleConnections()
		})
	}
	return tr
}

func ask(client *http.Client, url, question string) (a answer) {
	a.sent = time.Now()
	defer func() { a.ended = time.Now() }()
	body := fmt.Sprintf(`{"model": "llama", "max_tokens": 4, "messages": [{"role": "user", "content": %q}]}`, question)
	resp, err := client.Post(url+"/v1/chat/completions", "application/json", strings.NewReader(body))
	if err != nil {
		a.failure = err.Error()
		return a
	}
	defer resp.Body.Close()
	text := readAll(resp)
	a.replica = resp.Header.Get("x-modelsim-replica")
	if resp.StatusCode != http.StatusOK {
		a.failure = resp.Status + " " + text
	}
	return a
}

// end stops the clients.
func (tr *traffic) end() {
	tr.stop()
	tr.wait.Wait()
}

// all returns what was answered so far.
func (tr *traffic) all() []answer {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return slices.Clone(tr.answers)
}

// usedAfter waits until a replica answered a request that was sent after a time, and returns how long after it that was.
func (tr *traffic) usedAfter(replica string, at time.Time) (took time.Duration) {
	tr.t.Helper()
	until(tr.t, replica+" is used", func() bool {
		for _, a := range tr.all() {
			if a.replica == replica && a.sent.After(at) {
				took = a.ended.Sub(at)
				return true
			}
		}
		return false
	})
	return took
}

// lastOf returns how long after a time the last request was sent that a replica answered.
func (tr *traffic) lastOf(replica string, at time.Time) (last time.Duration) {
	for _, a := range tr.all() {
		if a.replica == replica {
			last = max(last, a.sent.Sub(at))
		}
	}
	return last
}

// further waits for so many further requests that were all sent from now on, and returns them.
func (tr *traffic) further(n int) []answer {
	tr.t.Helper()
	now := time.Now()
	var found []answer
	until(tr.t, fmt.Sprint(n, " further requests"), func() bool {
		found = found[:0]
		for _, a := range tr.all() {
			if a.sent.After(now) {
				found = append(found, a)
			}
		}
		return len(found) >= n
	})
	return found
}

// noFailure requires that no request failed so far.
func (tr *traffic) noFailure() {
	tr.t.Helper()
	failed := map[string]int{}
	for _, a := range tr.all() {
		if a.failure != "" {
			failed[a.failure]++
		}
	}
	require.Empty(tr.t, failed, "of %d requests", len(tr.all()))
}

func replicasOf(answers []answer) []string {
	var names []string
	for _, a := range answers {
		names = append(names, a.replica)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// clientOnce is for single questions.
var clientOnce = http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
