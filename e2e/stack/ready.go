package stack

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/inlet-proxy/inlet/internal/companion/replicas"
)

// WaitForSnapshot waits until Inlet has the companion's newest snapshot. Before that,
// Envoy's own load balancer picks. With wasm the other workers have it one tick later.
func (s *Stack) WaitForSnapshot(ctx context.Context) error {
	return s.envoy.Until(ctx, 20*time.Second, "informed of the replicas", func() bool {
		if s.o.Embedded {
			have, err := s.embeddedHasSnapshot()
			return err == nil && have
		}
		have, err := s.workersHaveSnapshot(ctx)
		return err == nil && have
	})
}

// embeddedHasSnapshot looks for the line that the embedded companion logs before its first snapshot.
func (s *Stack) embeddedHasSnapshot() (bool, error) {
	log, err := os.ReadFile(s.EnvoyLog())
	return strings.Contains(string(log), replicas.Publishing), err
}

// workersHaveSnapshot requests the companion's snapshot for people, which shows the version of each worker.
func (s *Stack) workersHaveSnapshot(ctx context.Context) (bool, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.Companion.URL()+"/v1/snapshot.json", nil)
	if err != nil {
		return false, err
	}
	resp, err := adminClient.Do(req)
	if err != nil {
		return false, err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		return false, err
	}
	var twin struct {
		ID      string `json:"id"`
		Workers []struct {
			Has string `json:"has"`
		} `json:"workers"`
	}
	if err := json.Unmarshal(body, &twin); err != nil {
		return false, fmt.Errorf("%w in %s", err, body)
	}
	for _, w := range twin.Workers {
		if w.Has == twin.ID {
			return true, nil
		}
	}
	return false, nil
}
