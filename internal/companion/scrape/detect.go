package scrape

import (
	"cmp"
	"errors"
	"fmt"
)

// detection is the order in which engines are tried: one whose metrics are part of another's comes after it.
var detection = []string{"vllm", "sglang", "trtllm-serve", "triton-tensorrt-llm", "triton", "jetstream"}

// scrape reads the gauges of a replica, whose engine is detected first if it is not known.
func (s *Scraper) scrape(p *poller) (Reading, error) {
	if p.mapping == nil {
		return s.detect(p)
	}
	reading, err := s.read(p)
	if p.engine == Auto && errors.Is(err, ErrMissing) {
		p.mapping = nil // another server may have started at this address
	}
	return reading, err
}

// detect finds the first engine all of whose metrics are there.
func (s *Scraper) detect(p *poller) (Reading, error) {
	var failed error
	texts := map[string][]byte{} // by path
	for _, word := range detection {
		path := cmp.Or(p.plan.Path, engines[word].Path, defaultPath)
		text, requested := texts[path]
		if !requested {
			var err error
			text, err = s.text(p.metrics, path, maxExposition, ErrTooLarge)
			failed = cmp.Or(failed, err)
			texts[path] = text
		}
		scan := new(scanner)
		scan.reset(compiled[word])
		if _, err := scan.Write(text); err != nil {
			continue
		}
		if reading, err := scan.reading(); err == nil {
			p.kind, p.mapping = engines[word], compiled[word]
			s.log.Info("detected the engine", "endpoint", p.address, "engine", word)
			return reading, nil
		}
	}
	if len(texts[cmp.Or(p.plan.Path, defaultPath)]) == 0 && failed != nil {
		return Reading{}, failed
	}
	return Reading{}, foreignError{fmt.Errorf("%w: the metrics are not those of a known engine", ErrMissing)}
}
