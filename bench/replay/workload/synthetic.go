package workload

import (
	"math"
	"math/rand/v2"
	"time"
)

// syntheticBlock is the block size of synthetic workloads, in tokens.
const syntheticBlock = 64

// maker makes a workload. The same seed makes the same workload.
type maker struct {
	*rand.Rand
	w    *Workload
	next ids
}

func newMaker(name string, seed uint64) *maker {
	return &maker{Rand: rand.New(rand.NewPCG(seed, 0)), w: &Workload{Name: name, BlockTokens: syntheticBlock}}
}

// logNormal draws a length of the given median; sigma is the deviation of its logarithm.
func (m *maker) logNormal(median, sigma float64, least, most int) int {
	return min(most, max(least, int(median*math.Exp(sigma*m.NormFloat64()))))
}

func (m *maker) exponential(mean time.Duration) time.Duration {
	return time.Duration(m.ExpFloat64() * float64(mean))
}

// ShareGPTLike is single questions that share nothing and arrive at random (Poisson), as in benchmarks with the ShareGPT
// data set. Prompts are log-normal with median 98 and sigma 1.0, so mean 161 tokens; outputs with median 262 and sigma
// 0.715, so mean 338: the means of that data set in the paper on vLLM (Kwon et al., SOSP 2023).
func ShareGPTLike(perSecond float64, d time.Duration, seed uint64) *Workload {
	m := newMaker("sharegpt-like", seed)
	gap := time.Duration(float64(time.Second) / perSecond)
	for at := m.exponential(gap); at < d; at += m.exponential(gap) {
		input := m.logNormal(98, 1.0, 4, 4096)
		m.w.Requests = append(m.w.Requests, Request{
			At: at, Input: input, Output: m.logNormal(262, 0.715, 4, 2048), Blocks: m.next.take(nil, input, syntheticBlock),
		})
	}
	m.w.number()
	return m.w
}

// session is a conversation whose prompts each continue the one before.
type session struct {
	at     time.Duration
	blocks []uint32 // full ones
	tail   int      // tokens after them
}

// say adds tokens to the conversation: if the last block was not full, it now is a different block.
func (m *maker) say(s *session, tokens int) {
	total := s.tail + tokens
	full := total / syntheticBlock
	s.blocks = m.next.take(s.blocks, (len(s.blocks)+full)*syntheticBlock, syntheticBlock)
	s.tail = total % syntheticBlock
}

// ask makes a request of the current session.
func (m *maker) ask(s *session, output int) {
	blocks := append([]uint32(nil), s.blocks...)
	input := len(blocks)*syntheticBlock + s.tail
	m.w.Requests = append(m.w.Requests, Request{
		At: s.at, Input: max(1, input), Output: output, Blocks: m.next.take(blocks, max(1, input), syntheticBlock),
	})
}

// BurstyChat is conversations that begin in bursts: each second on average (Poisson) a burst of 1 to 63 sessions arrives
// within 50 ms. Each session has one of 20 system prompts (512 to 2,048 tokens, the k-th as popular as 1/k), and 1 to 12
// turns (geometric, mean 4). A message of the user is log-normal (median 60 tokens, sigma 1.0), and so is the output
// (median 200, sigma 0.7), which is part of the next prompt. Two turns are separated by 40 ms per token of output and a
// think time (exponential, mean 8 s).
func BurstyChat(d time.Duration, seed uint64) *Workload {
	m := newMaker("bursty-chat", seed)
	var systems []session
	for range 20 {
		var s session
		m.say(&s, 512+m.IntN(1536))
		systems = append(systems, s)
	}
	for at := time.Duration(0); at < d; at += m.exponential(time.Second) {
		for range 1 + m.IntN(63) {
			s := systems[m.popular(len(systems))]
			s.blocks = append([]uint32(nil), s.blocks...)
			s.at = at + time.Duration(m.Int64N(int64(50*time.Millisecond)))
			for turn := 0; turn < 12; turn++ {
				m.say(&s, m.logNormal(60, 1.0, 4, 4096))
				output := m.logNormal(200, 0.7, 4, 2048)
				m.ask(&s, output)
				m.say(&s, output)
				s.at += time.Duration(output)*40*time.Millisecond + m.exponential(8*time.Second)
				if m.IntN(4) == 0 {
					break
				}
			}
		}
	}
	m.w.number()
	return m.w
}

// popular draws one of n by Zipf's law: the k-th with a weight of 1/k.
func (m *maker) popular(n int) int {
	sum := 0.0
	for k := 1; k <= n; k++ {
		sum += 1 / float64(k)
	}
	u := m.Float64() * sum
	for k := 1; k < n; k++ {
		if u -= 1 / float64(k); u < 0 {
			return k - 1
		}
	}
	return n - 1
}

// Agentic is agents that call tools in a loop: each session begins with the tools and rules of one of 6 agents (4,096 to
// 12,288 tokens, the k-th as popular as 1/k) and has 4 to 40 calls. A tool's result is log-normal (median 500 tokens,
// sigma 1.2), and so is the output (median 80, sigma 0.8). The next call comes after 20 ms per token of output and the
// tool's time (exponential, mean 2 s). Sessions begin at random (Poisson, 4 in 3 seconds). Nearly all of a prompt repeats
// earlier ones.
func Agentic(d time.Duration, seed uint64) *Workload {
	m := newMaker("agentic", seed)
	var agents []session
	for range 6 {
		var s session
		m.say(&s, 4096+m.IntN(8192))
		agents = append(agents, s)
	}
	for at := time.Duration(0); at < d; at += m.exponential(750 * time.Millisecond) {
		s := agents[m.popular(len(agents))]
		s.blocks = append([]uint32(nil), s.blocks...)
		s.at = at
		for range 4 + m.IntN(37) {
			m.say(&s, m.logNormal(500, 1.2, 20, 16384))
			output := m.logNormal(80, 0.8, 4, 1024)
			m.ask(&s, output)
			m.say(&s, output)
			s.at += time.Duration(output)*20*time.Millisecond + m.exponential(2*time.Second)
		}
	}
	m.w.number()
	return m.w
}

// Joined is workloads without tenants, one after the other, each for the given time.
func Joined(name string, each time.Duration, parts []*Workload) *Workload {
	w := &Workload{Name: name, BlockTokens: parts[0].BlockTokens}
	var next ids
	for i, part := range parts {
		var last ids
		for _, r := range part.Requests {
			r.At += time.Duration(i) * each
			r.Blocks = append([]uint32(nil), r.Blocks...)
			for j := range r.Blocks {
				last = max(last, ids(r.Blocks[j]))
				r.Blocks[j] += uint32(next)
			}
			w.Requests = append(w.Requests, r)
		}
		next += last
	}
	w.number()
	return w
}
