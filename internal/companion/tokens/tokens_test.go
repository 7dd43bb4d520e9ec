package tokens

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// issuer is a Source whose tokens live as long as it says.
type issuer struct {
	give func(n int) (Token, error)
	hang bool

	mu   sync.Mutex
	at   []time.Time
	down bool
}

func (i *issuer) Token(ctx context.Context) (Token, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.at = append(i.at, time.Now())
	switch {
	case i.hang:
		i.mu.Unlock()
		<-ctx.Done()
		i.mu.Lock()
		return Token{}, context.Cause(ctx)
	case i.down:
		return Token{}, errors.New("no route")
	}
	return i.give(len(i.at))
}

// asked returns when it was asked.
func (i *issuer) asked() []time.Time {
	i.mu.Lock()
	defer i.mu.Unlock()
	return slices.Clone(i.at)
}

func (i *issuer) setDown(down bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.down = down
}

// logged is a log that can be read while it is written.
type logged struct {
	mu   sync.Mutex
	text strings.Builder
}

// Write implements io.Writer.
func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// hourly gives a new token each time.
func hourly(n int) (Token, error) {
	return Token{Header: fmt.Sprintf("Bearer secret-%d", n), Expires: time.Now().Add(time.Hour)}, nil
}

// inFile returns the secret that Envoy would read.
func inFile(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	var response struct {
		Resources []struct {
			Type          string `json:"@type"`
			Name          string
			GenericSecret struct {
				Secret struct {
					InlineString string `json:"inline_string"`
				}
			} `json:"generic_secret"`
		}
	}
	require.NoError(t, json.Unmarshal(text, &response))
	require.Len(t, response.Resources, 1)
	require.Equal(t, "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret", response.Resources[0].Type)
	require.Equal(t, "google", response.Resources[0].Name)
	return response.Resources[0].GenericSecret.Secret.InlineString
}

// kept is a Keeper that runs in a bubble of virtual time.
type kept struct {
	*Keeper
	file string
	log  *logged
	stop func() // waits until it has ended
}

func keep(t *testing.T, s Source) *kept {
	k := &kept{file: filepath.Join(t.TempDir(), "google.json"), log: new(logged)}
	k.start(t, s)
	return k
}

func (k *kept) start(t *testing.T, s Source) {
	t.Helper()
	var err error
	k.Keeper, err = New(Options{Name: "google", File: k.file, Source: s, Log: slog.New(slog.NewTextHandler(k.log, nil))})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		k.Run(ctx)
	}()
	k.stop = func() {
		cancel()
		<-done
	}
}

func (k *kept) wasTried() bool {
	select {
	case <-k.Tried():
		return true
	default:
		return false
	}
}

func TestTokenIsRenewedLongBeforeItExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := &issuer{give: hourly}
		k := keep(t, source)
		require.Empty(t, inFile(t, k.file), "Envoy needs a file from the beginning")
		synctest.Wait()
		require.True(t, k.wasTried())
		require.Equal(t, "Bearer secret-1", inFile(t, k.file))
		for n := 2; n < 50; n++ {
			time.Sleep(46 * time.Minute) // a tenth less than three quarters, to three quarters
			synctest.Wait()
			require.Equal(t, fmt.Sprintf("Bearer secret-%d", len(source.asked())), inFile(t, k.file))
			require.GreaterOrEqual(t, len(source.asked()), n)
			asked := source.asked()
			between := asked[len(asked)-1].Sub(asked[len(asked)-2])
			require.LessOrEqual(t, between, 45*time.Minute)
			require.GreaterOrEqual(t, between, 40*time.Minute)
		}
		k.stop()
		require.Equal(t, uint64(len(source.asked())), k.Stats().Renewed)
		require.Zero(t, k.Stats().Failed)
		require.NotEmpty(t, inFile(t, k.file), "the file stays")
		require.NotContains(t, k.log.String(), "secret-")
	})
}

// The metadata server gives the same token until five minutes before it expires.
func TestTokenOfAServerThatCaches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var cached atomic.Pointer[Token]
		cached.Store(new(Token))
		source := &issuer{give: func(n int) (Token, error) {
			if time.Until(cached.Load().Expires) < 5*time.Minute {
				fresh, _ := hourly(n)
				cached.Store(&fresh)
			}
			return *cached.Load(), nil
		}}
		k := keep(t, source)
		defer k.stop()
		for range 24 * 60 {
			synctest.Wait()
			require.Positive(t, time.Until(k.Stats().Expires), "asked %d times", len(source.asked()))
			require.Equal(t, cached.Load().Header, inFile(t, k.file))
			time.Sleep(time.Minute)
		}
		require.Less(t, len(source.asked()), 3*25, "in a day")
	})
}

func TestOldTokenStaysWhileTheSourceFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := &issuer{give: hourly}
		k := keep(t, source)
		defer k.stop()
		synctest.Wait()
		source.setDown(true)
		time.Sleep(55 * time.Minute)
		synctest.Wait()
		require.Equal(t, "Bearer secret-1", inFile(t, k.file))
		require.Greater(t, k.Stats().Failed, uint64(10))
		require.Contains(t, k.log.String(), `level=WARN msg="cannot renew the token; the old one stays" token=google reason="no route"`)
		require.NotContains(t, k.log.String(), "level=ERROR")
		time.Sleep(6 * time.Minute)
		synctest.Wait()
		require.Contains(t, k.log.String(), `level=ERROR msg="the token has expired and cannot be renewed"`)
		require.Equal(t, "Bearer secret-1", inFile(t, k.file))
		source.setDown(false)
		time.Sleep(longestWait)
		synctest.Wait()
		require.Equal(t, fmt.Sprintf("Bearer secret-%d", len(source.asked())), inFile(t, k.file))
		require.Positive(t, time.Until(k.Stats().Expires))
	})
}

func TestBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := &issuer{down: true}
		k := keep(t, source)
		time.Sleep(time.Hour)
		k.stop()
		require.True(t, k.wasTried(), "a failure is an attempt")
		require.Contains(t, k.log.String(), `level=ERROR msg="no token yet" token=google reason="no route"`)
		var waits []time.Duration
		asked := source.asked()
		for i := range asked[1:] {
			waits = append(waits, asked[i+1].Sub(asked[i]))
		}
		for i, most := range []time.Duration{1, 2, 4, 8, 16, 32, 60, 60, 60, 60} {
			require.LessOrEqual(t, waits[i], most*time.Second)
			require.GreaterOrEqual(t, waits[i], most*time.Second*9/10)
		}
		require.LessOrEqual(t, waits[len(waits)-1], longestWait)
		require.True(t, k.Stats().Expires.IsZero())
		require.Empty(t, inFile(t, k.file))
	})
}

// A source that hands out dead tokens is not asked in a loop, and one that does not respond does not hold up the end.
func TestUselessSources(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dead := &issuer{give: func(int) (Token, error) { return Token{Header: "Bearer x", Expires: time.Now().Add(-time.Hour)}, nil }}
		k := keep(t, dead)
		time.Sleep(time.Minute)
		k.stop()
		require.Less(t, len(dead.asked()), 70)

		silent := &issuer{hang: true}
		k = keep(t, silent)
		time.Sleep(attemptTime + time.Second/2)
		synctest.Wait()
		require.True(t, k.wasTried())
		require.Contains(t, k.log.String(), `reason="no response in time"`)
		time.Sleep(time.Second)
		synctest.Wait()
		require.Len(t, silent.asked(), 2)
		began := time.Now()
		k.stop()
		require.Zero(t, time.Since(began))
		require.Equal(t, uint64(1), k.Stats().Failed, "an attempt that the end cut short is none")
	})
}

func TestTokenOfAnEarlierProcessStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := keep(t, &issuer{give: hourly})
		synctest.Wait()
		k.stop()
		k.start(t, &issuer{down: true})
		time.Sleep(time.Minute)
		k.stop()
		require.Equal(t, "Bearer secret-1", inFile(t, k.file))
	})
}

func TestFileThatCannotBeWritten(t *testing.T) {
	dir := t.TempDir()
	_, err := New(Options{Name: "google", File: filepath.Join(dir, "missing", "google.json")})
	require.ErrorContains(t, err, "token google: cannot write the file of the secret: ")

	synctest.Test(t, func(t *testing.T) {
		source := &issuer{give: hourly}
		k := keep(t, source)
		synctest.Wait()
		folder := filepath.Dir(k.file)
		require.NoError(t, os.RemoveAll(folder))
		time.Sleep(50 * time.Minute)
		synctest.Wait()
		require.Positive(t, k.Stats().Failed)
		require.NoError(t, os.Mkdir(folder, 0o700))
		time.Sleep(longestWait)
		k.stop()
		require.Equal(t, fmt.Sprintf("Bearer secret-%d", len(source.asked())), inFile(t, k.file))
		require.NotContains(t, k.log.String(), "secret-")
	})
}

func TestReplace(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "google.json")
	// What a crash, or somebody else, has left behind.
	require.NoError(t, os.WriteFile(filepath.Join(dir, "other"), []byte("kept"), 0o644))
	require.NoError(t, os.Symlink("other", filepath.Join(dir, ".google.json.new")))
	require.NoError(t, os.WriteFile(file, []byte("old"), 0o644))
	require.NoError(t, replace(file, []byte("new")))

	text, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, "new", string(text))
	info, err := os.Stat(file)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	text, err = os.ReadFile(filepath.Join(dir, "other"))
	require.NoError(t, err)
	require.Equal(t, "kept", string(text))
	names, err := filepath.Glob(filepath.Join(dir, ".*"))
	require.NoError(t, err)
	require.Empty(t, names)
}

func TestCheckFile(t *testing.T) {
	require.Empty(t, CheckFile("/run/google.json"))
	require.Empty(t, CheckFile("google.yaml"))
	require.True(t, strings.HasPrefix(CheckFile("/run/google"), "does not end in"))
}
