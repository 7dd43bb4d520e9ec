package engine

// slots are the slots for LoRA adapters on the accelerator. An adapter of a running request keeps its slot; another one
// keeps it until it is the least recently used one and the slot is needed.
type slots struct {
	adapters []int // in a slot, least recently used first
	users    []int // running requests by adapter; grows with the adapters seen
	used     int   // adapters with users
	limit    int
}

// allows reports whether a request with this adapter may run next to the running ones. Adapter 0 is the base model.
func (s *slots) allows(adapter int) bool {
	return adapter == 0 || s.used < s.limit || (adapter < len(s.users) && s.users[adapter] > 0)
}

// enter records a request that begins to run. It reports whether its adapter must be loaded.
func (s *slots) enter(adapter int) (load bool) {
	if adapter == 0 {
		return false
	}
	for adapter >= len(s.users) {
		s.users = append(s.users, 0)
	}
	if s.users[adapter]++; s.users[adapter] == 1 {
		s.used++
	}
	for i, known := range s.adapters {
		if known == adapter {
			copy(s.adapters[i:], s.adapters[i+1:])
			s.adapters[len(s.adapters)-1] = adapter
			return false
		}
	}
	if len(s.adapters) == s.limit {
		s.evict()
	}
	s.adapters = append(s.adapters, adapter)
	return true
}

// evict frees the slot of the least recently used adapter without users. There always is one, see allows.
func (s *slots) evict() {
	for i, adapter := range s.adapters {
		if s.users[adapter] == 0 {
			s.adapters = append(s.adapters[:i], s.adapters[i+1:]...)
			return
		}
	}
}

// leave records a request that no longer runs.
func (s *slots) leave(adapter int) {
	if adapter == 0 {
		return
	}
	if s.users[adapter]--; s.users[adapter] == 0 {
		s.used--
	}
}
