package scorer

// Session prefers one replica for all requests of a session, and the same next one when
// that is gone. Every proxy prefers the same, without any communication: rendezvous
// hashing (Thaler and Ravishankar, 1996).
type Session struct{}

// Name is "session".
func (Session) Name() string { return "session" }

// Needs the session.
func (Session) Needs() Needs { return NeedSession }

// Score is a hash of session and replica. It is the same for all if the request
// belongs to no session.
func (Session) Score(in *Input, rs []Replica, out []float64) {
	for i := range rs {
		out[i] = neutral
		if in.Session != 0 {
			out[i] = float64(Rendezvous(in.Session, rs[i].ID)>>11) / (1 << 53)
		}
	}
}

// Rendezvous returns a pseudo-random number for a key and a replica. The replica with the
// largest number is the one for the key. A replica that comes or goes moves no key but
// those that it gets or had.
func Rendezvous(key, id uint64) uint64 { return Mix(key ^ Mix(id)) }

// Mix spreads the bits of x (the finaliser of SplitMix64, Steele et al. 2014).
func Mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
