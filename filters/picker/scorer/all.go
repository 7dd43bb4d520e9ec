package scorer

// All is every scorer. A new one is its own file and one entry here.
var All = []Scorer{InFlight{}, Queue{}}

// Named returns the scorer of that name, or nil.
func Named(name string) Scorer {
	for _, s := range All {
		if s.Name() == name {
			return s
		}
	}
	return nil
}
