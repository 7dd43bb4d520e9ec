package scorer

// All is every scorer, the ones that a configuration can name. A new one is its own
// file and one line here.
var All = []Scorer{
	InFlight{},
	KVCache{},
	LoRA{},
	Prefix{},
	Queue{},
	Requests{},
	RoundRobin{},
	Session{},
	Work{},
}

// Names returns the names of all scorers.
func Names() []string {
	names := make([]string, len(All))
	for i, s := range All {
		names[i] = s.Name()
	}
	return names
}

// Named returns the scorer of a name, nil if there is none.
func Named(name string) Scorer {
	for _, s := range All {
		if s.Name() == name {
			return s
		}
	}
	return nil
}
