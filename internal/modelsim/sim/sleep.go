package sim

import (
	"context"
	"net/http"
	"strconv"
	"sync"
)

// rest is the sleep state of a replica, as after vLLM's /sleep: its caches are emptied, running requests continue, and
// new ones wait until it is woken. Health and metrics respond as usual; one metric shows the state.
type rest struct {
	mu     sync.Mutex
	asleep bool
	level  int           // 1: weights are kept in memory, 2: everything is discarded
	woken  chan struct{} // closed on waking; nil while awake
}

// Sleep puts the replica to sleep, at vLLM's level 0, 1 or 2.
func (s *Server) Sleep(level int) {
	s.model.rest.mu.Lock()
	defer s.model.rest.mu.Unlock()
	if !s.model.rest.asleep {
		s.model.rest.asleep, s.model.rest.woken = true, make(chan struct{})
	}
	s.model.rest.level = level
	s.model.forget()
	s.log.Info("asleep", "replica", s.cfg.Name, "level", level)
}

// WakeUp ends the sleep; waiting requests continue.
func (s *Server) WakeUp() {
	s.model.rest.mu.Lock()
	defer s.model.rest.mu.Unlock()
	if s.model.rest.asleep {
		close(s.model.rest.woken)
		s.model.rest.asleep, s.model.rest.level, s.model.rest.woken = false, 0, nil
		s.log.Info("awake", "replica", s.cfg.Name)
	}
}

// state returns whether the replica sleeps, and at which level.
func (r *rest) state() (asleep bool, level int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.asleep, r.level
}

// wait returns when the replica is awake, or with the error of the context.
func (r *rest) wait(ctx context.Context) error {
	r.mu.Lock()
	woken := r.woken
	r.mu.Unlock()
	if woken == nil {
		return nil
	}
	select {
	case <-woken:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// sleep handles POST /sleep?level=<0..2>; the default is 1.
func (s *Server) sleep(x *exchange) {
	level := 1
	if text := x.r.URL.Query().Get("level"); text != "" {
		var err error
		if level, err = strconv.Atoi(text); err != nil || level < 0 || level > 2 {
			x.fail(badRequest("level %q is not 0, 1 or 2", text))
			return
		}
	}
	s.Sleep(level)
	x.answer(http.StatusOK, "", nil)
}

func (s *Server) wakeUp(x *exchange) {
	s.WakeUp()
	x.answer(http.StatusOK, "", nil)
}

func (s *Server) isSleeping(x *exchange) {
	asleep, _ := s.model.rest.state()
	x.answer(http.StatusOK, "application/json", []byte(`{"is_sleeping":`+strconv.FormatBool(asleep)+`}`))
}

// forget empties the caches of all engines.
func (p *replica) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.advance(p.now())
	for _, r := range p.ranks {
		r.engine.Forget()
	}
}

// sleepState writes vllm:engine_sleep_state.
func (t *metricsText) sleepState() {
	const name = "vllm:engine_sleep_state"
	t.family(name, "gauge", "Engine sleep state; awake = 0 means engine is sleeping; awake = 1 means engine is awake; weights_offloaded = 1 means sleep level 1; discard_all = 1 means sleep level 2.")
	for _, state := range []struct {
		is    string
		holds bool
	}{{"awake", !t.asleep}, {"weights_offloaded", t.level == 1}, {"discard_all", t.level == 2}} {
		value := 0.0
		if state.holds {
			value = 1
		}
		for _, labels := range t.labels {
			t.sample(name, labels, value, label{"sleep_state", state.is})
		}
	}
}
