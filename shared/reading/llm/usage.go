package llm

// Usage is what an answer says of the tokens that it took. Counts are never negative.
type Usage struct {
	Known      bool // the answer said all of it that its API counts; if not, what follows may be less than it took
	Prompt     int  // tokens of the prompt, cached ones included
	Completion int  // tokens of the answer
	Total      int
	Cached     int // tokens of the prompt that came from a prefix cache, as far as the server tells
}

// metering says which tokens the answers of an API tell.
type metering uint8

const (
	noTokens     metering = iota // none: tokens were only counted, or named; or the service does not bill by them
	anyTokens                    // what the server likes to tell, which may be nothing
	promptTokens                 // those of the prompt: the answer is no text
	allTokens                    // those of the prompt and of the answer
)

var meterings = [...]metering{
	Chat:           allTokens,
	Completions:    allTokens,
	Responses:      allTokens,
	Messages:       allTokens,
	Images:         allTokens,
	ImageEdits:     allTokens,
	Transcriptions: allTokens,
	CohereChat:     allTokens,
	Embeddings:     promptTokens,
	CohereEmbed:    promptTokens,
	Rerank:         promptTokens,
	Score:          promptTokens,
	Pooling:        promptTokens,
	Classify:       promptTokens,
	Audio:          anyTokens,
	Generate:       anyTokens,
	Other:          anyTokens,
}

func (a API) metering() metering {
	if int(a) >= len(meterings) {
		return noTokens
	}
	return meterings[a]
}

// HasUsage reports whether an answer of the API may tell how many tokens were used.
func (a API) HasUsage() bool { return a.metering() != noTokens }

// TellsUsage reports whether something is missing in an answer of the API that does not tell its tokens.
func (a API) TellsUsage() bool { return a.metering() >= promptTokens }

// Completes reports whether answers of the API have tokens of their own, which take as long as they are many.
func (a API) Completes() bool { return a.metering() == allTokens || a.metering() == anyTokens }

// counts are the tokens that one event tells, or several of them one after the other.
type counts struct {
	told    uint32 // the places of which there was a number, by bit
	n       [counted]int
	written int  // of the "cache_creation" that is being read, so far
	rest    bool // Anthropic's: the input of the events so far is what was not cached, not the whole prompt
}

func (c *counts) has(p place) bool { return c.told>>p&1 == 1 }

// add takes a number. Some servers tell one count under two names, one of them 0.
func (c *counts) add(p place, n int) {
	c.told |= 1 << p
	if p == atWritten {
		c.written += n // one for each lifetime
		n = c.written
	}
	c.n[p] = max(c.n[p], n)
}

// take takes in what a later event tells. The counts of a stream are cumulative, so the later number is right; but some
// servers leave out in one event what another told, or write 0.
func (c *counts) take(e *counts, api API) {
	if e.told == 0 {
		return
	}
	later := *e
	if api == Messages {
		c.takeInput(&later)
	} else {
		later.derive(api)
	}
	for p, n := range later.n {
		if n > 0 {
			c.n[p] = n
		}
	}
	c.told |= later.told
}

// takeInput settles how the prompt's tokens of a later event, e, go together with those of the events before: the three members
// that report them (input_tokens are those that were neither read from the cache nor written to it) add up to the prompt only
// where they are of one event. vLLM, for one, tells the whole prompt as input_tokens when it begins, and at the end what of it
// was cached.
func (c *counts) takeInput(e *counts) {
	e.n[atCacheWrite] = max(e.n[atCacheWrite], e.n[atWritten])
	input, cached := e.n[atPrompt], e.n[atCached]+e.n[atCacheWrite]
	before := c.n[atCached] + c.n[atCacheWrite]
	switch {
	case input+cached == 0:
		// It does not know.
	case !e.has(atPrompt):
		whole, known := c.n[atPrompt]+before, e.cachedAfter(c)
		if c.rest = c.rest || known > whole; !c.rest {
			// Of a prompt that was told as a whole this much was cached.
			e.n[atPrompt], c.n[atPrompt] = whole-known, 0
		}
	case e.told&(1<<atCached|1<<atCacheWrite|1<<atWritten) != 0:
		c.n[atPrompt], c.n[atCached], c.n[atCacheWrite], c.rest = 0, 0, 0, cached > 0
	case input >= c.n[atPrompt]+before:
		// The whole prompt, or at least not less than all that was told before.
		e.n[atPrompt] = input - before
		c.n[atPrompt] = 0
	}
}

// cachedAfter is how much of the prompt has been cached by what an event tells after those before it.
func (c *counts) cachedAfter(before *counts) (n int) {
	for _, p := range [...]place{atCached, atCacheWrite} {
		if c.n[p] > 0 {
			n += c.n[p]
		} else {
			n += before.n[p]
		}
	}
	return n
}

// derive fills in from the total what is missing. A 0 is taken for missing where the total says more.
func (c *counts) derive(api API) {
	prompt, completion, total := &c.n[atPrompt], &c.n[atCompletion], c.n[atTotal]
	switch {
	case total == 0:
	case api.metering() == promptTokens:
		if *prompt == 0 {
			*prompt = max(0, total-*completion)
		}
	case *prompt > 0 && *completion == 0 && total > *prompt:
		*completion = total - *prompt
		c.told |= 1 << atCompletion
	case *prompt == 0 && *completion > 0:
		*prompt = max(0, total-*completion)
	}
}

// usage is what all events together say.
func (c *counts) usage(api API) Usage {
	if api != Messages {
		c.derive(api)
	}
	u := Usage{Prompt: c.n[atPrompt], Completion: c.n[atCompletion], Cached: c.n[atCached]}
	u.Prompt += c.n[atImages]
	if api == Messages {
		u.Prompt += u.Cached + c.n[atCacheWrite]
	}
	// No prompt is empty: servers that write 0 do not count.
	u.Known = u.Prompt > 0 && (c.has(atCompletion) || api.metering() != allTokens)
	u.Total = max(c.n[atTotal], u.Prompt+u.Completion)
	return u
}
