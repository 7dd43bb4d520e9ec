package endpoint

import (
	"encoding/binary"
	"iter"
	"math"
	"slices"
)

// The sections about what changes rarely or is not known for all: models, LoRA, cache and origin.

// appendFacts appends the sections that are not empty.
func appendFacts(dst []byte, pools []Pool) []byte {
	var models, lora, cache, origin bool
	for i := range pools {
		for j := range pools[i].Endpoints {
			e := &pools[i].Endpoints[j]
			models = models || e.Models != nil
			lora = lora || e.LoRA != nil
			cache = cache || e.Cache != Cache{}
			origin = origin || e.Priority != 0 || e.Started > 0
		}
	}
	var start int
	if models {
		dst, start = openSection(dst, sectionModels)
		dst = closeSection(appendModels(dst, pools), start)
	}
	if lora {
		dst, start = openSection(dst, sectionLoRA)
		dst = closeSection(appendLoRAs(dst, pools), start)
	}
	if cache {
		dst, start = openSection(dst, sectionCache)
		dst = closeSection(appendCaches(dst, pools), start)
	}
	if origin {
		dst, start = openSection(dst, sectionOrigin)
		dst = closeSection(appendOrigins(dst, pools), start)
	}
	return dst
}

// names is a table of strings, each once, in the order in which they were added.
type names struct {
	list     []string
	position map[string]uint64
}

func (n *names) add(name string) {
	if _, ok := n.position[name]; ok {
		return
	}
	if n.position == nil {
		n.position = make(map[string]uint64)
	}
	n.position[name] = uint64(len(n.list))
	n.list = append(n.list, name)
}

func (n *names) append(dst []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(n.list)))
	for _, name := range n.list {
		dst = appendString(dst, name)
	}
	return dst
}

// appendName appends the position of a name that was added.
func (n *names) appendName(dst []byte, name string) []byte {
	return binary.AppendUvarint(dst, n.position[name])
}

func (n *names) appendList(dst []byte, list []string) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(list)))
	for _, name := range list {
		dst = n.appendName(dst, name)
	}
	return dst
}

// All iterates over the names that requests can use as their model, including those of adapters.
func (m *Models) All() iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, name := range m.Names {
			if !yield(name) {
				return
			}
		}
		for _, a := range m.Adapters {
			if !yield(a.Name) {
				return
			}
		}
	}
}

// Equal reports whether two lists are the same.
func (m *Models) Equal(other *Models) bool {
	if m == nil || other == nil {
		return m == other
	}
	return m == other || slices.Equal(m.Names, other.Names) && slices.Equal(m.Adapters, other.Adapters)
}

// Equal reports whether two are the same.
func (l *LoRA) Equal(other *LoRA) bool {
	if l == nil || other == nil {
		return l == other
	}
	return l == other || l.Max == other.Max && slices.Equal(l.Running, other.Running) && slices.Equal(l.Waiting, other.Waiting)
}

// appendModels writes each set of models once: most endpoints of a pool serve the same.
func appendModels(dst []byte, pools []Pool) []byte {
	var table names
	var sets []*Models
	numbers := make([]uint64, 0, 64) // per endpoint, as on the wire
	for i := range pools {
		for j := range pools[i].Endpoints {
			e := &pools[i].Endpoints[j]
			if e.Models == nil {
				numbers = append(numbers, 0)
				continue
			}
			n := slices.IndexFunc(sets, e.Models.Equal)
			if n < 0 {
				n = len(sets)
				sets = append(sets, e.Models)
				table.addModels(e.Models)
			}
			numbers = append(numbers, uint64(n)+1)
		}
	}
	dst = table.append(dst)
	dst = binary.AppendUvarint(dst, uint64(len(sets)))
	for _, s := range sets {
		dst = table.appendModels(dst, s)
	}
	for _, n := range numbers {
		dst = binary.AppendUvarint(dst, n)
	}
	return dst
}

func (n *names) addModels(m *Models) {
	for _, name := range m.Names {
		n.add(name)
	}
	for _, a := range m.Adapters {
		n.add(a.Name)
		if a.Parent != "" {
			n.add(a.Parent)
		}
	}
}

func (n *names) appendModels(dst []byte, m *Models) []byte {
	dst = n.appendList(dst, m.Names)
	dst = binary.AppendUvarint(dst, uint64(len(m.Adapters)))
	for _, a := range m.Adapters {
		dst = n.appendName(dst, a.Name)
		parent := uint64(0)
		if a.Parent != "" {
			parent = n.position[a.Parent] + 1
		}
		dst = binary.AppendUvarint(dst, parent)
	}
	return dst
}

func appendLoRAs(dst []byte, pools []Pool) []byte {
	var b loraBook
	for i := range pools {
		for j := range pools[i].Endpoints {
			b.add(pools[i].Endpoints[j].LoRA)
		}
	}
	dst = b.appendHeader(dst)
	for i := range pools {
		for j := range pools[i].Endpoints {
			dst = b.appendLoRA(dst, pools[i].Endpoints[j].LoRA)
		}
	}
	return dst
}

// loraBook is what a list of LoRAs begins with: the names, and how much room the rest takes.
type loraBook struct {
	names
	told, total int
}

func (b *loraBook) add(l *LoRA) {
	if l == nil {
		return
	}
	b.told++
	b.total += len(l.Running) + len(l.Waiting)
	for _, name := range l.Running {
		b.names.add(name)
	}
	for _, name := range l.Waiting {
		b.names.add(name)
	}
}

func (b *loraBook) appendHeader(dst []byte) []byte {
	dst = b.names.append(dst)
	dst = binary.AppendUvarint(dst, uint64(b.told))
	return binary.AppendUvarint(dst, uint64(b.total))
}

func (b *loraBook) appendLoRA(dst []byte, l *LoRA) []byte {
	if l == nil {
		return append(dst, 0)
	}
	dst = binary.AppendUvarint(dst, uint64(min(max(0, l.Max), math.MaxInt32-1))+1)
	dst = b.appendList(dst, l.Running)
	return b.appendList(dst, l.Waiting)
}

func appendCaches(dst []byte, pools []Pool) []byte {
	for i := range pools {
		for j := range pools[i].Endpoints {
			c := pools[i].Endpoints[j].Cache
			dst = binary.AppendUvarint(dst, uint64(max(0, c.BlockTokens)))
			dst = binary.AppendUvarint(dst, uint64(max(0, c.Blocks)))
		}
	}
	return dst
}

func appendOrigins(dst []byte, pools []Pool) []byte {
	for i := range pools {
		for j := range pools[i].Endpoints {
			e := &pools[i].Endpoints[j]
			dst = binary.AppendUvarint(dst, uint64(e.Priority))
			dst = binary.AppendUvarint(dst, uint64(max(0, e.Started)))
		}
	}
	return dst
}

func (d *decoder) decodeFacts(kind int, b []byte) error {
	if d.repeats(kind, b) {
		return nil
	}
	switch kind {
	case sectionModels:
		r := textReader(b)
		d.issue.models = r.text
		r.models(d.endpoints)
		return r.done("models")
	case sectionLoRA:
		r := textReader(b)
		d.issue.lora = r.text
		r.loras(d.endpoints)
		return r.done("LoRA")
	case sectionOrigin:
		r := reader{b: b}
		for i := range d.endpoints {
			d.endpoints[i].Priority = uint16(r.uvarint(math.MaxUint16))
			d.endpoints[i].Started = int64(r.uvarint(math.MaxInt64))
		}
		return r.done("origin")
	default:
		r := reader{b: b}
		for i := range d.endpoints {
			c := &d.endpoints[i].Cache
			c.BlockTokens = int32(r.uvarint(math.MaxInt32))
			c.Blocks = int32(r.uvarint(math.MaxInt32))
		}
		return r.done("cache")
	}
}

func (r *reader) names() []string {
	const minName = 1 + 1
	list := make([]string, r.count(minName))
	for i := range list {
		list[i] = r.string("")
	}
	return list
}

// nameOf reads the position of a name.
func (r *reader) nameOf(names []string) string {
	i := r.uvarint(math.MaxInt32)
	if i >= uint64(len(names)) {
		r.fail("there is no such name")
		return ""
	}
	return names[i]
}

func (r *reader) models(endpoints []Endpoint) {
	const minSet = 1 + 1
	names := r.names()
	sets := make([]Models, r.count(minSet))
	for i := range sets {
		r.set(&sets[i], names)
	}
	for i := range endpoints {
		if n := r.uvarint(uint64(len(sets))); n > 0 {
			endpoints[i].Models = &sets[n-1]
		}
	}
}

func (r *reader) set(m *Models, names []string) {
	m.Names = make([]string, r.count(1))
	for i := range m.Names {
		m.Names[i] = r.nameOf(names)
	}
	m.Adapters = make([]Adapter, r.count(1+1))
	for i := range m.Adapters {
		m.Adapters[i].Name = r.nameOf(names)
		if p := r.uvarint(uint64(len(names))); p > 0 {
			m.Adapters[i].Parent = names[p-1]
		}
	}
}

func (r *reader) loras(endpoints []Endpoint) {
	room := r.loraRoom()
	for i := range endpoints {
		endpoints[i].LoRA = r.lora(&room)
	}
	r.filled(room)
}

// loraRoom is the memory for a list of LoRAs, allocated in two pieces.
type loraRoom struct {
	names []string
	loras []LoRA
	lists []string
}

func (r *reader) loraRoom() loraRoom {
	const minLoRA = 1 + 1 + 1
	return loraRoom{names: r.names(), loras: make([]LoRA, r.count(minLoRA)), lists: make([]string, r.count(1))}
}

// filled checks that the list had as much as it announced.
func (r *reader) filled(room loraRoom) {
	if len(room.loras) > 0 || len(room.lists) > 0 {
		r.fail("more than was announced, or less")
	}
}

func (r *reader) lora(room *loraRoom) *LoRA {
	limit := r.uvarint(math.MaxInt32)
	if limit == 0 {
		return nil
	}
	if len(room.loras) == 0 {
		r.fail("more than was announced, or less")
		return nil
	}
	l := &room.loras[0]
	room.loras = room.loras[1:]
	l.Max = int(limit - 1)
	l.Running = r.list(room)
	l.Waiting = r.list(room)
	return l
}

func (r *reader) list(room *loraRoom) []string {
	n := r.uvarint(uint64(len(room.lists)))
	list := room.lists[:n:n]
	room.lists = room.lists[n:]
	for i := range list {
		list[i] = r.nameOf(room.names)
	}
	return list
}
