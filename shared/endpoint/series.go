package endpoint

import (
	"strings"
	"unsafe"
)

// Series reads whole snapshots that come one after another. What is read is what Decode returns, in the memory of the one before the
// last: so a snapshot is as it was until the second Read after it, and nobody may use it after that. Nothing is allocated for names and
// facts that are the same in two snapshots.
//
// It is for a VM of its own, whose garbage collector would have some hundred KB to clear away at each change among 1,000 replicas.
type Series struct {
	last, spare issue
}

// issue is what is kept of a snapshot for the next ones.
type issue struct {
	pools        []Pool
	endpoints    []Endpoint // of all pools
	models, lora string     // their sections
}

// Read reads a whole snapshot. b is not kept.
func (s *Series) Read(b []byte) (*Snapshot, error) {
	d := decoder{snapshot: new(Snapshot), series: s}
	if err := d.decode(b); err != nil {
		return nil, err
	}
	d.issue.pools, d.issue.endpoints = d.snapshot.Pools, d.endpoints
	s.last, s.spare = d.issue, s.last
	return d.snapshot, nil
}

// room returns memory for so many endpoints.
func (d *decoder) room(n int) []Endpoint {
	if d.series == nil || d.series.spare.endpoints == nil || cap(d.series.spare.endpoints) < n {
		return make([]Endpoint, n)
	}
	endpoints := d.series.spare.endpoints[:n]
	clear(endpoints)
	return endpoints
}

// look returns a section to read from. In a series it is the input itself: what is kept of it must be copied, see poolName and address.
func (d *decoder) look(b []byte) string {
	if d.series == nil {
		return string(b)
	}
	return unsafe.String(unsafe.SliceData(b), len(b))
}

// poolName returns the name of the pool at a position, to keep.
func (d *decoder) poolName(name string, position int) string {
	if d.series == nil {
		return name
	}
	if last := d.series.last.pools; position < len(last) && last[position].Name == name {
		return last[position].Name
	}
	return strings.Clone(name)
}

// address returns the address of the endpoint at a position of all pools, to keep.
func (d *decoder) address(address string, position int) string {
	if d.series == nil {
		return address
	}
	if last := d.series.last.endpoints; position < len(last) && last[position].Address == address {
		return last[position].Address
	}
	return strings.Clone(address)
}

// repeats takes over what a section told the last time, if it is the same again.
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
