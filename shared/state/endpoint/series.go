package endpoint

// Series decodes complete snapshots that follow one another. It returns what Decode returns, in the memory of the snapshot before the last:
// a snapshot is valid until the second Read after it. Nothing is allocated for names and facts that are the same in two snapshots.
//
// It is for wasm VMs, whose garbage collector would otherwise have some hundred KB to free at each change among 1,000 replicas.
type Series struct {
	last, spare issue
}

// issue is what is kept of a snapshot for the next ones.
type issue struct {
	pools        []Pool
	endpoints    []Endpoint // of all pools
	models, lora string     // their sections
}

// Read decodes a complete snapshot. b is not kept.
func (s *Series) Read(b []byte) (*Snapshot, error) {
	d := decoder{snapshot: new(Snapshot), series: s}
	if err := d.decode(b); err != nil {
		return nil, err
	}
	d.issue.pools, d.issue.endpoints = d.snapshot.Pools, d.endpoints
	s.last, s.spare = d.issue, s.last
	return d.snapshot, nil
}

// room returns memory for n endpoints.
func (d *decoder) room(n int) []Endpoint {
	if d.series == nil || d.series.spare.endpoints == nil || cap(d.series.spare.endpoints) < n {
		return make([]Endpoint, n)
	}
	endpoints := d.series.spare.endpoints[:n]
	clear(endpoints)
	return endpoints
}

// namesFrom returns a reader of the pools: in a series most names are there already, else one copy has them all.
func (d *decoder) namesFrom(b []byte) reader {
	if d.series == nil {
		return textReader(b)
	}
	return reader{b: b}
}

// poolBefore returns the name of the pool that was at a position the last time.
func (d *decoder) poolBefore(position int) string {
	if d.series == nil || position >= len(d.series.last.pools) {
		return ""
	}
	return d.series.last.pools[position].Name
}

// addressBefore returns the address of the endpoint that was at a position of all pools the last time.
func (d *decoder) addressBefore(position int) string {
	if d.series == nil || position >= len(d.series.last.endpoints) {
		return ""
	}
	return d.series.last.endpoints[position].Address
}

// repeats reuses what was decoded of a section the last time, if it is the same again.
func (d *decoder) repeats(kind int, section []byte) bool {
	if d.series == nil || len(d.series.last.endpoints) != len(d.endpoints) {
		return false
	}
	last := &d.series.last
	switch {
	case kind == sectionModels && string(section) == last.models:
		d.issue.models = last.models
		for i := range d.endpoints {
			d.endpoints[i].Models = last.endpoints[i].Models
		}
		return true
	case kind == sectionLoRA && string(section) == last.lora:
		d.issue.lora = last.lora
		for i := range d.endpoints {
			d.endpoints[i].LoRA = last.endpoints[i].LoRA
		}
		return true
	}
	return false
}
