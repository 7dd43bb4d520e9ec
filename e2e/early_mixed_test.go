package e2e_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/e2e/stack"
)

const uploadsMixed = 400

// TestEarlyReleaseMixed: bodies of 200 bytes to 8 MB arrive byte for byte except for
// the model's name, wherever it is and however they are sent, when most of them are
// forwarded before their end.
func TestEarlyReleaseMixed(t *testing.T) {
	for _, abi := range abis {
		t.Run(abi, func(t *testing.T) {
			s := stack.ForTest(t, stack.Options{
				ABI: abi, NoCompanion: true, Workers: 2,
				Pools: []stack.Pool{{Name: "one", Replicas: 2, Args: []string{"--speed", "0"}}},
				Chain: "filters: [bbr: {models: [{name: m, targets: [{model: renamed, pool: one}]}, {name: kept, targets: [{pool: one}]}]}]\n",
			})
			inParallel(t, uploadsMixed, func(n int) error {
				u := uploadOf(uint64(n))
				if err := u.play(t.Context(), s); err != nil {
					return fmt.Errorf("upload %d, %d bytes, %s: %w", n, len(u.sent), u.code, err)
				}
				return nil
			})
			require.Empty(t, s.EnvoyErrors())
		})
	}
}

// mixedUpload is one of the bodies.
type mixedUpload struct {
	sent, want string
	code       string // of the error; "" for none
	sized      bool
	piece      int // bytes per write
}

// uploadOf makes body n; the same for every n.
func uploadOf(n uint64) *mixedUpload {
	r := rand.New(rand.NewPCG(n, 1))
	u := &mixedUpload{sized: r.IntN(2) == 0, piece: 1 << (10 + r.IntN(10))}
	size := int(200 * math.Pow(40_000, r.Float64()))
	before := size * r.IntN(4) / 3 // nothing, all, or something in between
	text := func(n int) string { return strings.Repeat(`wörd \u00e9 \"{\\`, max(0, n)/17) }
	model, target := "m", "renamed"
	if r.IntN(3) == 0 {
		model, target = "kept", "kept"
	}
	form := `{"input":"a","a":"` + text(min(before, size)) + `","n":12345678901234567890, "model" : %q ,"b":{"model":"` + text(size-before) + `"}}`
	u.sent, u.want = strings.Replace(form, "%q", `"`+model+`"`, 1), strings.Replace(form, "%q", `"`+target+`"`, 1)
	switch r.IntN(8) {
	case 0:
		u.sent, u.code = u.sent[:len(u.sent)-1]+`,"mod\u0065l":1}`, "duplicate_key"
	case 1:
		u.sent, u.code = u.sent[:len(u.sent)-1], "invalid_json"
	case 2:
		u.sent, u.code = u.sent+"}", "invalid_json"
	}
	return u
}

// bySize is a body that is read in pieces and whose length is unknown.
type bySize struct {
	of    *strings.Reader
	piece int
}

func (s bySize) Read(p []byte) (int, error) { return s.of.Read(p[:min(len(p), s.piece)]) }

func (u *mixedUpload) play(ctx context.Context, s *stack.Stack) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.URL()+"/v1/embeddings", bySize{strings.NewReader(u.sent), u.piece})
	if err != nil {
		return err
	}
	if u.sized {
		req.ContentLength = int64(len(u.sent))
	}
	req.Header.Set("content-type", "application/json")
	a := do(req)
	switch {
	case a.err != nil:
		return a.err
	case u.code != "":
		if a.status != http.StatusBadRequest || !strings.Contains(string(a.body), `"code":"`+u.code+`"`) {
			return fmt.Errorf("status %d: %.200s", a.status, a.body)
		}
		return nil
	case a.status != http.StatusOK:
		return fmt.Errorf("status %d: %.200s", a.status, a.body)
	}
	sum := sha256.Sum256([]byte(u.want))
	if got := a.header.Get("x-modelsim-body-sha256"); got != hex.EncodeToString(sum[:]) {
		return fmt.Errorf("another body arrived, of %s bytes, want %d", a.header.Get("x-modelsim-body-bytes"), len(u.want))
	}
	return nil
}
