package stack

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// Envoy is a second Envoy of a stack, with the same replicas and the same companion. It may be killed and started again.
type Envoy struct{ *Stack }

// StartEnvoy starts one more Envoy. It ends with Close, with the stack, or with ctx.
func (s *Stack) StartEnvoy(ctx context.Context) (_ *Envoy, err error) {
	dir := filepath.Join(s.Dir, fmt.Sprintf("envoy-%d", len(s.others)+2))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	e := &Envoy{&Stack{
		Dir: dir, Replicas: s.Replicas, Companion: s.Companion, Root: s.Root,
		o: s.o, access: newAccessLog(), lists: s.lists, watched: &discovery{dir: dir},
	}}
	e.o.Port = 0
	s.others = append(s.others, e)
	if err := e.startEnvoy(ctx); err != nil {
		e.Close()
		return nil, fmt.Errorf("%w\n%s", err, e.whyNot())
	}
	return e, nil
}

// Kill ends this Envoy at once, as a crash would.
func (e *Envoy) Kill() {
	e.envoy.Kill()
	e.access.end()
}

// Close ends this Envoy, but not the rest of the stack.
func (e *Envoy) Close() {
	e.close.Do(func() {
		if e.envoy != nil {
			e.envoy.Stop(5 * time.Second)
		}
		e.access.end()
	})
}
