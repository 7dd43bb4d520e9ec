package scorer

// All is every scorer. A new one is its own file and one entry here.
var All = []Scorer{InFlight{}, KVCache{}, LoRA{}, Prefix{}, Queue{}, Requests{}, Session{}}
